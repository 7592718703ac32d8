"""`overscan init`: a settings file for a dataset and a model, from which `overscan scan` needs no arguments."""

import tomllib
from collections.abc import Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Any

import click

from scanner.cli.calibrate import calibrate
from scanner.cli.explain import explain
from scanner.cli.options import examples
from scanner.cli.places import MODEL, NEW, STORE
from scanner.cli.report import report
from scanner.cli.scan import scan
from scanner.cli.settings import FILES
from scanner.cli.threshold import threshold
from scanner.cli.verify import verify
from scanner.dataset import readers
from scanner.errors import ScannerError
from scanner.files import replacing
from scanner.places import Place, is_url

HEAD = """\
# Settings of overscan. `overscan scan`, then `overscan report`, read them where they are started in this folder; the
# command line and the environment (OVERSCAN_SCAN_SEEDS=4) are stronger. `overscan config` shows what is in force.
# Paths count from the folder where overscan is started. What is commented out is the default, or an example.
"""
MORE: Mapping[click.Command, Mapping[str, Any]] = {  # what people change; examples, where the default is none
    scan: {
        "column": "caption",
        "seeds": 2,
        "screen": "auto",
        "reference": "ordinary.txt",
        "base_model": "last-night",
        "backend": "auto",
        "precision": "auto",
        "workers": 1,
        "strict": False,
    },
    report: {
        "quantile": 0.99,
        "top": 100,
        "threshold": "threshold.json",
        "calibration": "calibration.parquet",
        "fdr": 0.05,
        "baseline": "baseline.json",
        "fail_on": "new",
        "nights": "reports",
        "metrics": "overscan.prom",
        "redact": False,
    },
    threshold: {"quantile": 0.999, "fpr": 0.0001, "calibration": "calibration.parquet"},
    calibrate: {"inputs": ["benign.txt"]},
    verify: {"report": "report", "top": 10, "seeds": 4},
    explain: {"report": "report", "top": 5},
}


@click.command(epilog=examples("overscan init captions.parquet -m bundle", "overscan scan --dry-run", "overscan scan"))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-m", "--model", required=True, type=MODEL, help="Bundle, or a diffusers folder with torch.")
@click.option("-s", "--store", type=STORE, default="store", show_default=True, help="Folder that keeps the scores.")
@click.option("--column", help="Column or key of the captions.  [default: guessed]")
@click.option("-o", "--out", type=NEW, default=FILES[0], show_default=True, help="The settings file.")
def init(inputs: tuple[str, ...], model: Place, store: Place, column: str | None, out: Path) -> None:
    """Write a commented settings file for a dataset (INPUT, as of `scan`) and a model; then `overscan scan` is enough.

    Opens the files of captions, without reading them through, and says which column it found.
    """
    if out.exists():
        raise ScannerError(f"{out} exists: change it by hand, remove it, or name another file with --out")
    rows = readers.read(inputs, column)
    text = written(inputs, model, store, column)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
    _say(rows, out, store)
    click.echo(str(out))


def written(inputs: tuple[str, ...], model: Place, store: Place, column: str | None = None) -> str:
    """The text of the file. Raises ScannerError for names that TOML cannot hold."""
    named = {"model": str(model)}
    given: dict[click.Command, dict[str, Any]] = {
        scan: {"inputs": list(inputs)} | named | ({} if column is None else {"column": column}),
        report: {"out": "report"},
        threshold: {"out": "threshold.json"},
        calibrate: named | {"out": "calibration.parquet"},
        verify: named | {"out": "verified"},
        explain: named,
    }
    shared = {"store": str(store)}
    tables = [f"[{command.name}]\n" + "\n".join(_table(command, given[command])) for command in given]
    text = "\n".join([HEAD, *_lines(scan, shared), "", "\n\n".join(tables), ""])
    held = shared | {command.name: values for command, values in given.items()}
    try:
        if tomllib.loads(text) == held:
            return text
    except tomllib.TOMLDecodeError:
        pass
    raise ScannerError(f"{', '.join(inputs)}, {model}, {store}: names that a settings file cannot hold: rename them")


def _table(command: click.Command, given: Mapping[str, Any]) -> Iterator[str]:
    yield from _lines(command, given)
    yield from _lines(command, {name: value for name, value in MORE[command].items() if name not in given}, "# ")


def _lines(command: click.Command, values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Settings with what their options' help says of them."""
    options = {item.name: item for item in command.params}
    for name, value in values.items():
        option = options[name]
        said = (option.help or "").partition("  [")[0] if isinstance(option, click.Option) else ""
        yield f"{before}{name} = {dumps(value, ensure_ascii=False)}" + (f"  # {said}" if said else "")


def _say(rows: readers.Rows, out: Path, store: Place) -> None:
    columns = sorted({str(column) for source in rows.files.values() if (column := source.how.get("column"))})
    found = f", column {', '.join(columns)}" if columns else ""
    files = "1 file" if len(rows.files) == 1 else f"{len(rows.files):,} files"
    click.echo(f"{files} of captions{found}", err=True)
    if rows.problems:
        click.echo(rows.summary(), err=True)
    here = out.resolve() == Path(FILES[0]).resolve()
    inside = not is_url(str(store)) and Path(store).resolve().is_relative_to(Path.cwd().resolve())
    named = "" if here and inside else f" --config {out}"  # a file that is found may write inside its folder alone
    click.echo(f"next: overscan{named} scan --dry-run, overscan{named} scan, overscan{named} report", err=True)
