"""A night decided on scores of known places: benign ones evenly from 0 to 1, and so many above them all."""

from datetime import date

import numpy as np
import polars as pl
from reports import stored_scan

from scanner.audit.calibrate import Calibration
from scanner.audit.decision import decide

CANARIES = pl.DataFrame({"canary": ["a dog"], "s_v1": [0.5]}, schema_overrides={"s_v1": pl.Float32})


def prompts(scores, first=0):
    ids = [f"{first + i:032x}" for i in range(len(scores))]
    frame = pl.DataFrame({"prompt_id": ids, "text": ids, "n_rows": [1] * len(ids), "status": ["scored"] * len(ids)})
    return frame.with_columns(pl.Series("s_v1", scores, pl.Float32), truncated=pl.lit(False))


def night(scores, rule, **options):
    frame = prompts(scores)
    rows = pl.LazyFrame({"file": ["x"] * len(frame), "row": range(len(frame)), "text": frame["text"]})
    return decide(stored_scan(frame, rows, [("a dog", 0.5)]), rule, date(2030, 1, 1), **options)


def null(n=999):
    """n benign scores, evenly from 0 to 1."""
    return Calibration.of("scan", "s_v1", prompts(np.linspace(0, 1, n), 10**6), CANARIES, {"inputs": ["null.txt"]})


def data(m, high):
    """m scores, `high` of them above every null score and the others below its median."""
    return [*np.linspace(0, 0.5, m - high), *[2.0] * high]
