"""`overscan report`."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Any

import click
import polars as pl

from scanner import report as reports
from scanner.audit import baseline as baselines
from scanner.audit import calibrate, policy
from scanner.audit.baseline import Accepted
from scanner.audit.calibrate import DEFAULT_FDR
from scanner.audit.choice import best
from scanner.audit.decision import decide
from scanner.audit.diff import drift
from scanner.audit.evidence import Prior
from scanner.audit.kept import Kept
from scanner.audit.kept import read as read_kept
from scanner.audit.rank import Rule
from scanner.audit.summary import Summary, as_json
from scanner.cli import closer, options
from scanner.cli.console import out_console
from scanner.cli.places import FILE, FOLDER, OUT_FILE, OUT_FOLDER
from scanner.cli.progress import progress
from scanner.config import ScanConfig
from scanner.copies import change, check, written
from scanner.diffusion.scores import DEFAULT_SCORE, best_score
from scanner.disk import work_folder
from scanner.errors import ScannerError
from scanner.places import Place, inside
from scanner.report.read import former, history
from scanner.store.stored import StoredScan, read_store

DEFAULT_QUANTILE = 0.99
RATES = ("fdr", "fpr")


@click.command(
    epilog=options.examples(
        "overscan report -s store -o report --top 100",
        "overscan report -s store -o report --calibration calibration.parquet --fdr 0.05",
        "overscan report -s store -o tuesday --threshold threshold.json --baseline baseline.json --fail-on new",
    )
)
@options.filled_store
@click.option("--scan-id", help="Scan to report, 8 or more first characters.  [default: the one that began last]")
@click.option("--last-run", is_flag=True, help="Only captions of the scan's newest run.  [default: of all its runs]")
@click.option("-o", "--out", required=True, type=OUT_FOLDER, help="Folder for the report's files.")
@options.score
@click.option("--top", type=int, help="Ranking: flag the N highest prompts.")
@click.option("--quantile", type=float, help=f"Ranking: flag from this quantile up.  [default: {DEFAULT_QUANTILE}]")
@click.option(
    "--threshold", type=options.Threshold(), metavar="N|FILE", help="Flag from this score up, or as `threshold` kept."
)
@click.option("--calibration", type=FILE, help="Null scores of `overscan calibrate`: adds p_value and q_value.")
@click.option(
    "--fdr", type=float, help=f"Flag at this false discovery rate.  [default with --calibration: {DEFAULT_FDR}]"
)
@click.option("--fpr", type=float, help="Flag at this false positive rate.")
@click.option("--base-rate", type=float, help="Memorized share of the captions: says how many flags are true.")
@click.option("--tpr", type=float, help="Share of the memorized ones that the rule finds.  [default: 1, at most]")
@click.option("--baseline", type=FILE, help="Findings in this file are known, not new.")
@click.option("--write-baseline", type=OUT_FILE, help="Accept this night's findings: add them to a baseline.")
@click.option("--allow", type=FILE, help="CSV of prompt_id,reason,expires: prompts that may stay until then.")
@click.option("--fail-on", metavar="new|any|N", help="Exit with 1: on new findings, on any not allowed, on N new ones.")
@click.option("--nights", type=FOLDER, help="Folder of former report folders: draws flags over the nights.")
@click.option("--metrics", type=OUT_FILE, help="Also gauges in Prometheus' text format.")
@click.option("--junit", type=OUT_FILE, help="Also new findings as JUnit XML, for CI pages.")
@click.option("--sarif", type=OUT_FILE, help="Also new findings as SARIF, for code scanning.")
@click.option("--verify", type=click.IntRange(1), metavar="N", help="Generate the N highest findings, for pictures.")
@click.option("--images", metavar="COLUMN|members", help="With --verify: beside the dataset's own images.")
@click.option("--by", help="Who ran it, in the report.")
@click.option("--redact", is_flag=True, help="Ids for captions and no folders, everywhere.")
@click.option("--json", is_flag=True, help="Print the summary as JSON.")
def report(
    store: Place,
    scan_id: str | None,
    last_run: bool,
    out: Place,
    score: str | None,
    calibration: Path | None,
    base_rate: float | None,
    tpr: float | None,
    baseline: Path | None,
    write_baseline: Place | None,
    allow: Path | None,
    fail_on: str | None,
    nights: Path | None,
    metrics: Place | None,
    junit: Place | None,
    sarif: Place | None,
    verify: int | None,
    images: str | None,
    by: str | None,
    redact: bool,
    json: bool,
    **limits: Any,
) -> None:
    """Flag prompts of a scan; write report.html, summaries and the flagged prompts and rows as data.

    A ranking by --top, --quantile or --threshold says nothing of false alarms; a decision by --fdr or --fpr needs
    --calibration. With --verify, and with what `images` and `explain` have left in the folder, pictures and words stand
    beside the captions.
    """
    if redact and verify is not None:
        raise click.UsageError("--redact hides captions, --verify shows what is generated from them: one of the two")
    if images is not None and verify is None:
        raise click.UsageError("--images needs --verify")
    chosen = _strongest(limits, calibration)
    kept = _kept(chosen)
    if kept is not None:
        kept.check(kept.scan_id, score)
        score = kept.score
    rule = Rule(DEFAULT_SCORE if score is None else score, **chosen)
    prior = _prior(base_rate, tpr)
    if write_baseline is not None:
        check(write_baseline, _refuse_another)
    fails = None if fail_on is None else policy.FailOn.parse(fail_on)
    work = click.get_current_context().with_resource(work_folder())
    stored, made = read_store(store, scan_id, last_run, work), datetime.now(UTC)
    facts = reports.facts_of(stored.scan_id, stored.record, stored.earlier, by)
    if score is None:
        score = _default_score(stored, rule)
        rule = replace(rule, score=score)
        facts["Score"] = f"{score}, the best measured of those that the scan has"
    night = decide(
        stored,
        rule,
        made.date(),
        calibration=None if calibration is None else calibrate.read(calibration, score),
        baseline=None if baseline is None else baselines.read_baseline(baseline),
        allow=None if allow is None else policy.read_allow(allow),
        kept=kept,
        prior=prior,
    )
    with written(out) as folder:
        earlier = former(night.summary, nights, folder, work)
        night = night if earlier is None else night.noting(drift(earlier, night))
        past = None if nights is None else history(nights, night.summary)
        with progress() as watch:
            looked = reports.Beside() if redact else closer.look(night, stored.record, folder, verify, images, watch)
        following = None if redact else closer.following(stored.record, out, looked, [*sys.argv[1:], "--verify", "6"])
        beside = {"looks": looked.looks, "pages": looked.pages, "following": following}
        contents = reports.contents_of(night, facts, made, past, **beside)
        found = night.summary
        if redact:
            places = reports.Places.of([stored.record, *stored.earlier], night.flagged["file"].unique())
            contents, found = reports.redact(contents, places), reports.redact_summary(found, places)
        paths: list[Place] = [inside(out, path.name) for path in reports.write(folder, contents, found, looked.files)]
        handed = reports.hand_over({"metrics": metrics, "junit": junit, "sarif": sarif}, contents, found)
    paths += handed
    if write_baseline is not None:
        seen = night.prompts.filter(pl.col("finding").is_in(["new", "known"]))["prompt_id"].to_list()
        entry = Accepted(made.date().isoformat(), stored.scan_id, score)
        change(write_baseline, lambda path: baselines.accept(path, seen, entry))
        paths.append(write_baseline)
    _say(found, contents, paths, json)
    if fails is not None and (violation := fails.violation(night.prompts)):
        click.echo(violation, err=True)
        click.get_current_context().exit(1)


def _refuse_another(path: Path) -> None:
    if path.exists():
        baselines.read_baseline(path)


def _say(found: Summary, contents: reports.Contents, paths: list[Place], json: bool) -> None:
    if json:
        click.echo(dumps(as_json(found), indent=1))
    else:
        out_console.print(reports.table(contents))
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    kind = "A decision" if found.rule.decides else "A ranking"
    names = ["/".join(Path(path).parts[-2:]) if contents.redacted else str(path) for path in paths]
    click.echo(f"{kind}: flagged is not memorized. Written: {', '.join(names)}", err=True)


def _default_score(stored: StoredScan, rule: Rule) -> str:
    """The score where none is named. Raises ScannerError for a threshold that is likely of another score."""
    score = best(stored)
    others = best_score(replace(stored.record.config, seeds=ScanConfig().seeds), reference=False)
    if rule.threshold is not None and score != others:
        raise ScannerError(
            f"a threshold without a score: by default this scan is ranked by {score}, the same of two seeds and "
            f"without a reference by {others}: name the --score that the --threshold is of"
        )
    return score


def _kept(limits: dict[str, Any]) -> Kept | None:
    """The threshold that a file keeps, if one is named; its number takes the place of the name."""
    file = limits.get("threshold")
    if not isinstance(file, Path):
        return None
    kept = read_kept(file)
    limits["threshold"] = kept.value
    return kept


def _prior(base_rate: float | None, tpr: float | None) -> Prior | None:
    if base_rate is None and tpr is not None:
        raise ScannerError("a tpr without a base rate says nothing of the flags: needed --base-rate too")
    return None if base_rate is None else Prior(base_rate, tpr)


def _strongest(limits: dict[str, Any], calibration: Path | None) -> dict[str, Any]:
    """The limits of the strongest source that names any; the default where none does.

    A calibration of a stronger source stands for a decision: limits that only rank give way to it, rates do not.
    """
    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name, limit in limits.items() if limit is not None}
    if calibration is not None:
        judge = options.STRENGTH.index(context.get_parameter_source("calibration"))
        sources = {name: of for name, of in sources.items() if name in RATES or options.STRENGTH.index(of) <= judge}
    if not sources:
        return {"quantile": DEFAULT_QUANTILE} if calibration is None else {"fdr": DEFAULT_FDR}
    return options.strongest({name: limits[name] for name in sources})
