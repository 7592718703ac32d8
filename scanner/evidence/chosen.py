"""Prompts for a closer look: named ones, or some of a report's, under its own model, settings and threshold."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import polars as pl

from scanner.audit.decision import Night
from scanner.audit.summary import Summary
from scanner.dataset import captions
from scanner.dataset.captions import prompt_ids
from scanner.errors import InputError, ScannerError
from scanner.identity import LEAST
from scanner.places import Place


def choose(night: Night, ids: Sequence[str], top: int) -> list[str]:
    """Texts of the prompts with these `ids`, each once, or else of the `top` highest.

    An id is 8 or more of its first characters; several may stand in one text, separated by commas. Raises ScannerError
    for an id that no prompt, or more than one, has, and for a redacted report.
    """
    ranked = night.ranked.filter(pl.col("rank").is_not_null()).sort("rank").collect()
    asked = [prompt_id.strip() for text in ids for prompt_id in text.split(",")]
    chosen = pl.concat([_one(ranked, prompt_id) for prompt_id in asked]) if asked else ranked.head(top)
    if not prompt_ids(chosen["text"]).equals(chosen["prompt_id"]):
        raise ScannerError("the report is redacted, it does not hold whole captions: report again without --redact")
    return chosen["text"].unique(maintain_order=True).to_list()


def limit(summary: Summary, score: str | None, threshold: float | None) -> tuple[str, float]:
    """The score to look at and the threshold to get under: those asked for, else the report's.

    The report's threshold is its rule's, its calibration's, or else the lowest flagged score. Raises ScannerError where
    it flags nothing, or by another score.
    """
    if threshold is not None:
        return summary.score if score is None else score, threshold
    if score not in (None, summary.score):
        raise ScannerError(f"the report flags by {summary.score}, not by {score}: name a --threshold for that")
    if summary.threshold is None:
        raise ScannerError("the report flags nothing, so it has no threshold to get under: name a --threshold")
    return summary.score, summary.threshold


def check_scan(summary: Summary, scan_id: str) -> None:
    """Raises ScannerError if a report is of another model or other settings than `scan_id`."""
    if summary.full_scan_id != scan_id:
        raise ScannerError(
            f"the report is of scan_id {summary.full_scan_id}, this model and these settings make {scan_id}: scores of "
            "others do not compare; give the --model, --backend, --seeds, --first-steps, --timesteps, --prior-noises, "
            "--guidance-scale, --reference and --base-model of the scan (`overscan status` tells them)"
        )


def check_model(summary: Summary, model: Place, manifest_fingerprint: str) -> None:
    """Raises ScannerError unless a report's scan is of `model`, in whatever settings, backend and precision."""
    made = summary.made_with
    if made is None:
        raise ScannerError("an older overscan wrote the report, which does not say of which model: report again")
    if made.scan_id(manifest_fingerprint) != summary.full_scan_id:
        raise ScannerError(
            f"{model}: not the model of the report, which is of {made.model}: its prompts stand out under that one; "
            "give that as --model, or choose prompts with --prompt"
        )


def _one(ranked: pl.DataFrame, prompt_id: str) -> pl.DataFrame:
    found = ranked.filter(pl.col("prompt_id").str.starts_with(prompt_id))
    if len(prompt_id) < LEAST or len(found) != 1:
        raise ScannerError(
            f"prompt_id {prompt_id!r}: {len(found):,} scored prompts of the report begin so; needed {LEAST} or more "
            "first characters of one (prompt_id in its scores.parquet)"
        )
    return found


def with_images(prompts: Sequence[str], paths: Sequence[Path]) -> dict[str, Path | None]:
    """Each prompt once, as a scan gives it to the model, and the file of the image in its place; None without images.

    Raises InputError where their numbers differ, and for a prompt that a scan would not score.
    """
    texts = pl.LazyFrame({"text": prompts}, schema={"text": pl.String}).select(captions.as_prompt(pl.col("text")))
    unique = captions.unique_prompts(texts)
    if paths and not len(paths) == len(prompts) == len(unique):
        found = f"{len(paths)} images for {len(prompts)} prompts, {len(unique)} of them different"
        raise InputError(f"{found}: give each --prompt one --image")
    for text, status in unique.filter(pl.col("status") != "to_score").select("text", "status").iter_rows():
        raise InputError(f"prompt {text!r} is {status}: needed a caption in UTF-8")
    return dict(zip_longest(unique["text"], paths))
