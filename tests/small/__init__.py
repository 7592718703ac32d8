"""The small models that the tests scan, their captions, and what generation says about them: see README.md beside."""

from pathlib import Path

DATA = Path(__file__).parent
BUNDLE, CAPTIONS, LABELS = DATA / "bundle", DATA / "captions.parquet", DATA / "labels.parquet"
REFERENCE = DATA / "reference.txt"
CHECKPOINTS = {name: DATA / name for name in ("v_prediction", "epsilon")}
