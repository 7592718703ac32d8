"""`overscan recheck`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path

import click

from scanner import report as reports
from scanner.audit import calibrate, kept, policy
from scanner.audit.baseline import read_baseline
from scanner.audit.calibrate import Calibration
from scanner.audit.decision import Night, decide
from scanner.audit.diff import count, diff, notes
from scanner.audit.kept import Kept
from scanner.audit.rank import Rule
from scanner.audit.summary import Summary
from scanner.cli import options, places
from scanner.cli.console import summary
from scanner.cli.progress import progress
from scanner.cli.signals import stoppable
from scanner.config import MadeWith, Screen
from scanner.copies import here, written
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import Watch
from scanner.disk import work_folder
from scanner.errors import InputError, ScannerError
from scanner.places import Place, inside, same
from scanner.report.read import read_night
from scanner.report.terminal import change_lines
from scanner.scanning.passes import Purpose
from scanner.scanning.result import ScanResult
from scanner.scanning.run import scan
from scanner.store.inputs import distinct
from scanner.store.ledger import Ledger
from scanner.store.record import RunRecord
from scanner.store.stored import StoredScan, canaries_of, read_store

CALIBRATION, THRESHOLD = "calibration.parquet", "threshold.json"  # beside the report's files, for the nights to come


@dataclass(frozen=True)
class Again:
    """What a report was made from, to be done again with another model.

    `null`: inputs of its null captions, if any; `screen`: of a screened scan, with the first pass of the new model.
    """

    made: MadeWith
    runs: tuple[RunRecord, ...]
    null: tuple[RunRecord, ...]
    screen: Screen | None


@click.command(
    epilog=options.examples(
        "overscan recheck --report monday -m new-bundle -s store -o monday-again",
    )
)
@click.option("--report", required=True, type=places.FILLED_FOLDER, help="Report folder of the former checkpoint.")
@options.model
@click.option("-s", "--store", required=True, type=places.STORE, help="Store of the former checkpoint's scan.")
@click.option("-o", "--out", required=True, type=places.OUT_FOLDER, help="Folder for its report and calibration.")
@click.option("--null", multiple=True, help="Benign captions.  [default: those of the former calibration]")
@click.option("--baseline", type=places.FILE, help="Accepted findings: they stay known under the new checkpoint.")
@click.option("--fail-on", metavar="new|any|N", help="As of `overscan report`.")
@click.option("--base-model", type=places.MODEL, help="What it is compared with.  [default: the former scan's base]")
@click.option("--screen-model", type=places.MODEL, help="What makes a screened scan's first pass, if another did.")
@click.option("--backend", help="What runs the networks.  [default: the former scan's]")
@click.option("--precision", type=options.PRECISION, help="What they compute in.  [default: the former scan's]")
@options.batch_size
@click.option("--json", is_flag=True, help="Print the changes as JSON.")
def recheck(
    report: Place,
    model: Place,
    store: Place,
    out: Place,
    null: tuple[str, ...],
    baseline: Path | None,
    fail_on: str | None,
    base_model: Path | str | None,
    screen_model: Place | None,
    backend: str | None,
    precision: str | None,
    batch_size: int | None,
    json: bool,
) -> None:
    """Do a report again for a new checkpoint, on the same captions and settings, and say what changed.

    Scans with the new model, calibrates it on the same benign captions, decides by the same rule, and compares by rank
    and p-value: scores of two models do not compare by value. Interrupted, the same command goes on.
    """
    if same(out, report):
        raise ScannerError(f"{out}: the former report, which stays to compare with: name another --out")
    fails = None if fail_on is None else policy.FailOn.parse(fail_on)
    known = None if baseline is None else read_baseline(baseline)
    before = read_night(here(report))
    again = _again(before.summary, store, null, screen_model)
    with written(out) as folder:
        with stoppable() as stop, progress() as watch:
            made = again.made
            made = replace(made, backend=backend or made.backend, precision=precision or made.precision)
            base = made.base.path if base_model is None and made.base is not None else base_model
            one = _scanner(made, again.screen, model, base, store, batch_size, watch, stop)
            calibration = _calibrated(again.null, one, folder, before.summary.score, model)
            done = _scanned(again.runs, one)
        click.echo(summary(done), err=True)
        work = click.get_current_context().with_resource(work_folder())
        stored, now = read_store(store, done.scan_id, work=work), datetime.now(UTC)
        if stored.scan_id == before.summary.scan_id:
            click.echo("note: the model and the settings are the former report's: no score can have changed", err=True)
        if base_model is None and stored.record.base != made.base:
            click.echo(f"note: another base model lies at {base} than the former scan was compared with", err=True)
        rule, chosen = _carried(before.summary, stored, calibration, f"{now:%Y-%m-%d}")
        after = decide(stored, rule, now.date(), calibration=calibration, baseline=known, kept=chosen)
        after = after.noting(notes(before, after))
        facts = reports.facts_of(stored.scan_id, stored.record, stored.earlier)
        files = reports.write(folder, reports.contents_of(after, facts, now), after.summary)
        paths = [inside(out, file.name) for file in files]
        if chosen is not None:
            kept.write(folder / THRESHOLD, chosen)
    _say(before, after, json)
    click.echo(f"Written: {', '.join(map(str, paths))}", err=True)
    if fails is not None and (violation := fails.violation(after.prompts)):
        click.echo(violation, err=True)
        click.get_current_context().exit(1)


def _again(former: Summary, store: Place, nulls: tuple[str, ...], screen_model: Place | None) -> Again:
    """What the former report was made from, as the store tells. Raises ScannerError where it does not, or cannot."""
    if former.made_with is None:
        raise ScannerError("an older overscan wrote the report, which does not say of which settings: report again")
    ledger = Ledger(store)
    _, runs = ledger.scan_runs(former.scan_id)
    records = [run for run in ledger.records(former.full_scan_id) if run.purpose == "calibration"]
    null = distinct(records)[:1] if records else []
    if nulls:
        null = [_named(runs[0], nulls)]
    if not null and (former.rule.decides or (former.kept is not None and former.kept.fpr is not None)):
        raise ScannerError(
            "the report decides by null captions, and the store does not know which: name them with --null, as they "
            "were given to `overscan calibrate`"
        )
    return Again(former.made_with, tuple(distinct(runs)), tuple(null), _screen(runs[0], ledger, screen_model))


def _screen(run: RunRecord, ledger: Ledger, model: Place | None) -> Screen | None:
    """The same share by the same score; its threshold is chosen anew, as scores of two models do not compare."""
    screening = run.screening
    if screening is None or screening.model == run.model:
        if model is not None:
            raise ScannerError("--screen-model: the former scan's first pass was its own model's: leave it out")
    elif model is None:
        raise ScannerError(
            f"the report is of a scan screened by another model, {screening.model}: make the same of the new "
            "checkpoint (such as an int8 bundle, `overscan export --dtype int8`) and name it with --screen-model"
        )
    if screening is None:
        return None
    first = ledger.records(screening.first_scan_id)[0]
    precision = None if model is None and first.precision == run.precision else first.precision
    return Screen(screening.share, screening.score, model, precision, screening.sample, first.config.timesteps)


def _named(run: RunRecord, nulls: tuple[str, ...]) -> RunRecord:
    return replace(run, inputs=nulls, column=None, limit=None, dialect=None)


def _scanner(
    made: MadeWith,
    screen: Screen | None,
    model: Place,
    base: Path | str | None,
    store: Place,
    batch_size: int | None,
    watch: Watch,
    stop: Callable[[], bool],
) -> Callable[[RunRecord, Purpose], ScanResult]:
    """Scans again what a run was asked, with another model and these settings; null captions get all passes."""
    reference = None if made.reference is None else made.reference.path

    def one(run: RunRecord, purpose: Purpose) -> ScanResult:
        return scan(
            run.inputs, purpose=purpose, watch=watch, stop=stop, model=model, store=store, column=run.column,
            dialect=run.dialect, limit=run.limit, reference=reference, config=made.config, backend=made.backend,
            precision=made.precision, batch_size=batch_size, base_model=base,
            screen=screen if purpose == "scan" else None,
        )  # fmt: skip

    return one


def _scanned(runs: tuple[RunRecord, ...], one: Callable[[RunRecord, Purpose], ScanResult]) -> ScanResult:
    """The captions of all runs, the newest run's last; inputs of earlier ones that are gone are said."""
    for run in reversed(runs[1:]):
        try:
            one(run, "scan")
        except InputError as error:
            click.echo(f"note: captions of an earlier run are left out: {error}", err=True)
    return one(runs[0], "scan")


def _calibrated(
    null: tuple[RunRecord, ...], one: Callable[[RunRecord, Purpose], ScanResult], out: Path, score: str, model: Place
) -> Calibration | None:
    """The null of the new model, scored and written; None where the former report had none."""
    if not null:
        return None
    done = one(null[0], "calibration")
    source = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "inputs": list(null[0].inputs), "model": str(model)}
    names = list(SCORES)
    canaries = canaries_of([done.record], names)
    n = calibrate.write(out / CALIBRATION, done.scan_id, done.scores, names, canaries, source)
    click.echo(calibrate.reach(n), err=True)
    return calibrate.read(out / CALIBRATION, score)


def _carried(former: Summary, stored: StoredScan, null: Calibration | None, today: str) -> tuple[Rule, Kept | None]:
    """The former rule for another model: a threshold does not carry over, but how it was chosen does."""
    rule, held = former.rule, former.kept
    if rule.threshold is None:
        return rule, None
    if held is not None and held.fpr is not None:
        asked = Rule(rule.score, fpr=held.fpr)
    else:  # the share that was asked for, or, of a bare number, that it flagged
        share = max(former.flagged, 1) / max(former.scored, 1)
        asked = Rule(rule.score, quantile=1 - share if held is None else held.quantile)
    chosen = kept.choose(stored, asked, today, null if asked.fpr is not None else None)
    return chosen.rule, chosen


def _say(before: Night, after: Night, json: bool) -> None:
    changes = diff(before, after)
    if json:
        said = {"headline": after.summary.headline, "notes": after.summary.notes, "changes": changes.to_dicts()}
        click.echo(dumps(said, indent=1, ensure_ascii=False))
    else:
        for line in change_lines(changes):
            click.echo(line)
    for note in after.summary.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{after.summary.headline}\n{count(changes)}", err=True)
