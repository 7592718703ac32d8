"""Are findings images? Groups of flagged captions against what generation showed, and against two controls.

    python tools/findings.py BUNDLE LABELS.parquet [--prior-noises N]

LABELS: prompt, label (memorized, by generation) and image (that it is a copy of). Flagged is what the demo's rule
flags. Of pairs of captions that are put together, the share that lead to one image (precision), and of pairs that do,
the share that is put together (recall).
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from scanner import Model, ScanConfig
from scanner.audit.findings import group
from scanner.audit.rank import rank
from scanner.dataset.captions import prompt_ids
from scanner.demo import RULE

JACCARD = np.arange(0.1, 1.0, 0.05)  # shares of words that two captions have in common, tried for the control


def scored(bundle: Path, labels: pl.DataFrame, prior_noises: int | None = None) -> pl.DataFrame:
    """Every labelled prompt with its scores and its sketch."""
    scorer = Model(bundle, "cpu", config=ScanConfig(prior_noises=prior_noises)).scorer()
    parts = [scorer(part) for part in labels.with_columns(text="prompt").iter_slices(scorer.chunk)]
    return pl.concat(parts).join(labels, on="prompt_id")


def pairs(found: Sequence[object], truth: Sequence[object]) -> tuple[int, int, int]:
    """Pairs put together rightly, put together, and to be put together."""
    numbered = range(len(found))
    together = {(i, j) for i, j in combinations(numbered, 2) if found[i] == found[j]}
    true = {(i, j) for i, j in combinations(numbered, 2) if truth[i] == truth[j]}
    return len(together & true), len(together), len(true)


def by_sketch(prompts: pl.DataFrame) -> list[str]:
    """The finding of each prompt."""
    found = group(prompts, prompts.select("prompt_id", "sketch_v1"))
    return prompts.join(found, on="prompt_id", how="left", maintain_order="left")["finding_id"].to_list()


def by_text(share: float) -> Callable[[pl.DataFrame], list[int]]:
    """Each prompt with the highest one that has this share of words in common with it."""

    def grouped(prompts: pl.DataFrame) -> list[int]:
        words = [frozenset(prompt.lower().split()) for prompt in prompts["prompt"]]
        return [
            next(j for j, other in enumerate(words) if len(own & other) >= share * len(own | other)) for own in words
        ]

    return grouped


def line(name: str, counts: tuple[int, int, int]) -> str:
    """A row of the table."""
    right, together, true = counts
    return f"| {name} | {together:,} | {right / max(1, together):.3f} | {right / true:.3f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--prior-noises", type=int)
    asked = parser.parse_args()
    labels = pl.read_parquet(asked.labels)
    labels = labels.with_columns(prompt_id=prompt_ids(labels["prompt"]))
    ranked = rank(scored(asked.bundle, labels, asked.prior_noises), RULE)
    for what, chosen in (("memorized", pl.lit(True)), ("memorized and flagged", pl.col("flagged"))):
        prompts = ranked.filter(chosen, pl.col("label"))
        truth = prompts["image"].to_list()
        print(
            f"\n{len(prompts):,} captions {what}, {len(set(truth)):,} images, {len(set(by_sketch(prompts))):,} findings"
        )
        print("| by | pairs put together | precision | recall |\n|---|---|---|---|")
        print(line("sketches", pairs(by_sketch(prompts), truth)))
        dealt = prompts.with_columns(pl.col("sketch_v1").sample(fraction=1, shuffle=True, seed=0))
        print(line("the same sketches, dealt out anew", pairs(by_sketch(dealt), truth)))
        tried = {share: pairs(by_text(share)(prompts), truth) for share in JACCARD}
        best = max(tried, key=lambda share: tried[share][0] / (tried[share][1] + tried[share][2]))
        print(line(f"words in common, the best share ({best:.2f})", tried[best]))
    flagged = ranked.filter("flagged")
    of = flagged.with_columns(finding=pl.Series(by_sketch(flagged)))
    copied = of.filter("label").group_by("finding").agg(pl.col("image").n_unique())
    beside = of.join(copied, on="finding", how="semi").filter(~pl.col("label").fill_null(False))
    print(f"\nall {len(flagged):,} flagged: {of['finding'].n_unique():,} findings")
    print(f"{len(copied):,} hold a memorized caption, {len(copied.filter(image=1)):,} of them of one image only")
    print(f"{len(beside):,} captions in these are not memorized")


if __name__ == "__main__":
    main()
