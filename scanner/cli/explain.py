"""`overscan explain`."""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any

import click

from scanner import copies
from scanner.cli import closer
from scanner.cli.console import out_console
from scanner.cli.options import as_text, examples, model_options, scan_model
from scanner.cli.options import ids as ids_option
from scanner.cli.places import FOLDER, OUT_PLACE
from scanner.cli.progress import progress
from scanner.cli.scores import ScoreName
from scanner.diffusion.scores import SCORES, best_score
from scanner.evidence import explain as evidence
from scanner.evidence import explain_page, explained
from scanner.evidence.chosen import check_scan, choose, limit
from scanner.places import Place, inside, is_url
from scanner.report.read import read_night


@click.command(
    epilog=examples(
        "overscan explain --report report -m bundle",
        'overscan explain --prompt "some hot dogs" -m bundle',
    )
)
@click.option("--prompt", multiple=True, allow_from_autoenv=False, help="Caption to explain; may be repeated.")
@click.option("--report", type=FOLDER, help="Report folder: explain its prompts under its score and threshold.")
@ids_option
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="With --report: the N highest.")
@click.option("--threshold", type=float, help="Find edits that score lower.  [default: the report's; else no edits]")
@click.option("--score", type=ScoreName(list(SCORES)), help="Score to explain.  [default: the report's; else the best]")
@model_options
@click.option(
    "-o", "--out", type=OUT_PLACE, help="Folder for a page and a table; or a file, .parquet or .jsonl, for the table."
)
@click.option("--json", is_flag=True, help="Print JSON.")
def explain(
    prompt: tuple[str, ...], report: Path | None, ids: tuple[str, ...], top: int, threshold: float | None,
    score: str | None, out: Place | None, json: bool, model: Path, **settings: Any,
) -> None:  # fmt: skip
    """Say which words of a caption make its score, and the fewest to delete to get it under a threshold.

    Scores the caption without each word. Give --prompt, or --report with the model and settings of its scan.
    """
    opened = scan_model(model, **settings)
    texts = [as_text(item) for item in prompt]
    if report is not None:
        night = read_night(report)
        check_scan(night.summary, opened.scan_id)
        if ids or not texts:
            texts += choose(night, ids, top)
        score, threshold = limit(night.summary, score, threshold)
    elif ids or not prompt:
        raise click.UsageError("--ids needs --report" if ids else "needed --prompt or --report")
    score = best_score(opened.settled, bool(opened.reference)) if score is None else score
    into = out is not None and (not Path(str(out)).suffix or (not is_url(out) and Path(out).is_dir()))
    if out is not None and not into:
        copies.check(out, explained.check)

    def announce(variants: int, more: int) -> None:
        at_most = f"; at most {more * opened.passes:,} more to find edits" if more else ""
        cost = f"{variants:,} with each word left out: {variants * opened.passes:,} UNet passes{at_most}"
        click.echo(f"{len(texts):,} captions, {cost}", err=True)

    with progress() as watch:
        found = evidence.explain(opened.scorer(watch), texts, score, threshold, announce, watch)
    if out is not None and into:
        with copies.written(out) as folder:
            files = explain_page.write(folder, found, score, threshold, opened.scan_id)
            reported = closer.reported(folder)
        click.echo(f"Written: {', '.join(str(inside(out, file.name)) for file in files)}", err=True)
        if reported:
            click.echo(closer.AGAIN, err=True)
    elif out is not None:
        variants = evidence.variants(found)
        copies.change(out, lambda path: explained.write(path, variants))
    if json:
        facts = {"scan_id": opened.scan_id, "score": score, "threshold": threshold}
        click.echo(dumps(facts | {"captions": [asdict(item) for item in found]}, indent=1, ensure_ascii=False))
    else:
        for item in found:
            out_console.print(explained.view(item, score, threshold))
