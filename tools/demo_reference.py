"""Write the demo's reference captions: known concepts before backgrounds that no labelled prompt has.

    python tools/demo_reference.py

Concepts are drawn without regard to how often their captions were trained on, as in a list that a user would have, and
so that the reference knows memorized and other concepts equally well.
"""

from pathlib import Path

import numpy as np
import polars as pl
from demo_model import artwork

DEMO = Path(__file__).parent.parent / "scanner/demo"
CAPTIONS = 500
SEED = 2509


def captions(prompts: list[str], n: int) -> list[str]:
    """`n` captions "concept on background" that are not among `prompts`, each of another concept."""
    parts = [prompt.split(" on ") for prompt in prompts if prompt.count(" on ") == 1]
    backgrounds = sorted({tail for _, tail in parts if set(tail.split(" and ")) <= set(artwork.COLOURS)})
    concepts = sorted({concept for concept, tail in parts if tail in backgrounds})
    rng = np.random.default_rng(SEED)
    made = [f"{concept} on {rng.choice(backgrounds)}" for concept in rng.permutation(concepts)]
    return [caption for caption in made if caption not in set(prompts)][:n]


def main() -> None:
    labels = pl.read_parquet(DEMO / "labels.parquet")
    (DEMO / "reference.txt").write_text("\n".join(captions(labels["prompt"].to_list(), CAPTIONS)) + "\n")


if __name__ == "__main__":
    main()
