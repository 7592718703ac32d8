"""The small models that the tests scan, their captions, and what generation says about them: see README.md beside."""

from pathlib import Path

import polars as pl

DATA = Path(__file__).parent
BUNDLE, CAPTIONS, LABELS = DATA / "bundle", DATA / "captions.parquet", DATA / "labels.parquet"
REFERENCE = DATA / "reference.txt"
CHECKPOINTS = {name: DATA / name for name in ("v_prediction", "epsilon")}


def first(n):
    """The first `n` of the captions, each once."""
    return pl.read_parquet(CAPTIONS)["caption"].unique(maintain_order=True)[:n].to_list()
