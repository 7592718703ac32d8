"""`overscan threshold`."""

from dataclasses import asdict
from datetime import UTC, datetime
from json import dumps
from pathlib import Path

import click

from scanner.audit import calibrate, kept
from scanner.audit.choice import best
from scanner.audit.rank import Rule
from scanner.cli import options
from scanner.cli.places import FILE, OUT_FILE
from scanner.copies import change
from scanner.disk import work_folder
from scanner.errors import ScannerError
from scanner.places import Place
from scanner.store.stored import read_store

DEFAULT_QUANTILE = 0.999


@click.command(
    epilog=options.examples(
        "overscan threshold -s store -o threshold.json",
        "overscan threshold -s store -o threshold.json --calibration calibration.parquet --fpr 0.0001",
    )
)
@options.filled_store
@click.option("--scan-id", help="Scan to choose from, 8 or more first characters.  [default: the one that began last]")
@click.option("-o", "--out", required=True, type=OUT_FILE, help="File to keep the threshold in.")
@options.score
@click.option("--quantile", type=float, help=f"At this quantile of the captions.  [default: {DEFAULT_QUANTILE}]")
@click.option("--fpr", type=float, help="At this false positive rate, by --calibration.")
@click.option("--calibration", type=FILE, help="Null scores of `overscan calibrate`, for --fpr.")
@click.option("--json", is_flag=True, help="Print what was written as JSON.")
def threshold(
    store: Path,
    scan_id: str | None,
    out: Place,
    score: str | None,
    quantile: float | None,
    fpr: float | None,
    calibration: Path | None,
    json: bool,
) -> None:
    """Choose a score from which captions are flagged, once, and keep it for `overscan report --threshold FILE`.

    A quantile that is taken anew each night flags its share of any dataset, clean or not, and a burst of memorized
    captions raises it; a kept score flags what stands out from the captions of the day when it was chosen.
    """
    limits = options.strongest({"quantile": quantile, "fpr": fpr})
    if "fpr" in limits and calibration is None:
        raise ScannerError("--fpr without --calibration: null captions tell a rate of false alarms")
    if "fpr" not in limits and calibration is not None and "quantile" not in limits:
        raise ScannerError("--calibration without --fpr: needed the rate of false alarms to choose at, such as 0.001")
    if not limits:
        limits = {"quantile": DEFAULT_QUANTILE}
    work = click.get_current_context().with_resource(work_folder())
    stored = read_store(store, scan_id, work=work)
    rule = Rule(best(stored) if score is None else score, **limits)
    null = None if calibration is None or rule.fpr is None else calibrate.read(calibration, rule.score)
    chosen = kept.choose(stored, rule, f"{datetime.now(UTC):%Y-%m-%d}", null)
    change(out, lambda path: kept.write(path, chosen))
    click.echo(f"{chosen.score} from {chosen.value:.4g} up: {chosen.how}", err=True)
    click.echo(dumps(asdict(chosen), indent=1) if json else str(out))
