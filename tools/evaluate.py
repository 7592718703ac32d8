"""Detection tables of the labelled demo prompts: every score, seeds 1, 2, 4, collapsed prompts counted three ways.

python tools/evaluate.py BUNDLE LABELS
"""

import argparse
from pathlib import Path

import polars as pl

from engines import open_bundle
from scanner import ScanConfig
from scanner.dataset.captions import prompt_id
from scanner.diffusion.scores import SCORES
from scanner.evidence.evaluate import evaluate
from scanner.scorer import Scorer

SEEDS = (1, 2, 4)


def score(bundle: Path, prompts: list[str], seeds: int) -> pl.DataFrame:
    """[text, scores...] of every prompt."""
    scorer = Scorer(open_bundle(bundle), ScanConfig(seeds=tuple(range(seeds))))
    frame = pl.DataFrame({"prompt_id": [prompt_id(p) for p in prompts], "text": prompts, "status": "pending"})
    scores = pl.concat([scorer(chunk) for chunk in frame.iter_slices(scorer.chunk)])
    return frame.join(scores, on="prompt_id").select("text", *SCORES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    labels = pl.read_parquet(arguments.labels)
    print("| score | seeds | negative | left out | positive | Spearman with similarity |\n|---|---|---|---|---|---|")
    for seeds in SEEDS:
        scores = score(arguments.bundle, labels["prompt"].to_list(), seeds)
        defined = [name for name in SCORES if scores[name].is_not_nan().all() and not scores[name].has_nulls()]
        table = evaluate(scores, labels, defined)
        severity = labels.join(scores, left_on="prompt", right_on="text")
        for name in defined:
            rows = table.filter(score=name).iter_rows(named=True)
            cells = [f"{row['auroc']:.4f} / {row['tpr_at_1%_fpr']:.2f}" for row in rows]
            rank = severity.select(pl.corr(name, "similarity", method="spearman")).item()
            print(f"| {name} | {seeds} | {' | '.join(cells)} | {rank:.3f} |")
    print()
    for row in table.unique("collapsed", maintain_order=True).iter_rows(named=True):
        print(f"- collapsed {row['collapsed']}: {row['positives']} memorized, {row['negatives']} not")


if __name__ == "__main__":
    main()
