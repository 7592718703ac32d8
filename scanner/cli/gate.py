"""`overscan gate`."""

import sys
from collections.abc import Iterable, Iterator
from json import dumps
from pathlib import Path
from typing import Any

import click
import polars as pl

from scanner.audit.kept import read as read_kept
from scanner.cli import options
from scanner.cli.progress import progress
from scanner.cli.signals import stoppable
from scanner.dataset.captions import as_prompt, status_of
from scanner.diffusion.scores import best_score, possible_scores
from scanner.errors import ScannerError
from scanner.identity import prompt_id
from scanner.model import Scorer
from scanner.model.stopping import stopping


@click.command(
    epilog=options.examples(
        "overscan gate -m bundle --threshold threshold.json < prompts.txt",
        'overscan gate "christmas tree" -m bundle --score low_noise_norm_v1 --threshold 12',
    )
)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@options.model_options
@options.score
@click.option(
    "--threshold", required=True, type=options.Threshold(), metavar="N|FILE", help="A score, or as `threshold` kept."
)
def gate(prompts: tuple[str, ...], model: Path, score: str | None, threshold: float | Path, **settings: Any) -> None:
    """Answer PROMPT, or each line of stdin as it comes, with its score and whether it reaches a threshold, as JSON.

    For a service that asks before it generates: the numbers are those that a scan with these settings gives. "hold"
    says that a prompt stands out, and no more; "unknown" that it has no score.
    """
    opened = options.scan_model(model, **settings)
    with stoppable() as stop, progress() as watch:
        opened = opened.prepare(stopping(watch, stop))
    assert opened.prepared is not None
    scorer = opened.scorer()
    name, value = _rule(threshold, score, scorer, opened.prepared.canaries)
    lines: Iterator[str] = map(options.as_text, prompts) if prompts else _lines()
    for answer in answers(scorer, lines, name, value):
        click.echo(dumps(answer, ensure_ascii=False))


def _lines() -> Iterator[str]:
    """Of stdin, each as soon as it is whole; bytes that are no UTF-8 as U+FFFD."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def answers(scorer: Scorer, lines: Iterable[str], score: str, threshold: float) -> Iterator[dict[str, object]]:
    """One for each line: `prompt_id`, `score` (null where a prompt has none), `verdict` pass, hold or unknown."""
    for line in lines:
        prompt = pl.select(text=as_prompt(pl.lit(line))).with_columns(status=status_of(pl.col("text")))
        (text, status), found = prompt.row(0), None
        if status == "to_score":
            found = scorer(pl.DataFrame({"prompt_id": [prompt_id(text)], "text": [text]}))[score][0]
        verdict = "unknown" if found is None else "hold" if found >= threshold else "pass"
        yield {"prompt_id": prompt_id(text), "score": found, "verdict": verdict}


def _rule(threshold: float | Path, score: str | None, scorer: Scorer, canaries: pl.DataFrame) -> tuple[str, float]:
    """The score to look at, and from where up. Raises ScannerError for a kept threshold of another scan."""
    config, reference, base = scorer.config, scorer.start.reference is not None, scorer.base is not None
    if isinstance(threshold, Path):
        kept = read_kept(threshold)
        kept.check(scorer.scan_id, score)
        return kept.score, kept.value
    if score is None:
        best = best_score(config, reference)
        raise ScannerError(f"a threshold is a number of one score: name it, such as --score {best}")
    able = [name for name in possible_scores(config, reference, base) if canaries[name].is_not_null().any()]
    if score not in able:
        raise ScannerError(f"{score}: these settings give {', '.join(able)}")
    return score, threshold
