"""One finding per image: flagged prompts whose first steps point at the same one.

By their sketches alone, which are estimates: what is grouped may lead to two images that are alike, and what leads to
one image may be apart. Knows frames only.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

ALIKE = 0.8  # cosine of sketches from which two prompts are of one finding: measured in docs/report.md
LEADERS = 10_000  # highest prompts that may begin a finding of several
BLOCK = 1024  # prompts compared at once

Floats = NDArray[np.float32]


def group(flagged: pl.DataFrame, sketches: pl.DataFrame) -> pl.DataFrame:
    """[prompt_id, finding_id] of the flagged prompts [rank, prompt_id] that have one of `sketches`, best rank first.

    From the highest rank down, a prompt joins the finding whose first prompt it resembles most, if by ALIKE or more, or
    else begins one; `finding_id` is the prompt_id of a finding's first. Time grows as prompts times findings of
    several, which only the first LEADERS prompts begin: lower ones join one or stand alone.
    """
    held = flagged.select("rank", "prompt_id").join(sketches, on="prompt_id", how="inner").sort("rank")
    ids = held["prompt_id"]
    return pl.DataFrame({"prompt_id": ids, "finding_id": ids.gather(_leaders(_units(held["sketch_v1"])))})


def _units(sketches: pl.Series) -> Floats:
    """Sketches as unit vectors [N, length]."""
    if sketches.is_empty():
        return np.zeros((0, 1), np.float32)
    rows = np.frombuffer(b"".join(sketches), "<f2").reshape(len(sketches), -1).astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6)))


def _leaders(units: Floats) -> list[int]:
    """For each unit vector, best first, the place of the one that leads its finding."""
    leaders: list[int] = []
    found: list[int] = []
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        known, among = _nearest(block, units[leaders]), block @ block.T
        begun: list[int] = []  # places in this block
        for i in range(len(block)):
            place, likeness = known[i]
            if begun:
                best = int(among[i, begun].argmax())
                if among[i, begun[best]] > likeness:
                    place, likeness = len(leaders) + best, float(among[i, begun[best]])
            if likeness >= ALIKE:
                found.append(leaders[place] if place < len(leaders) else start + begun[place - len(leaders)])
                continue
            found.append(start + i)
            if start + i < LEADERS:
                begun.append(i)
        leaders += [start + i for i in begun]
    return found


def _nearest(block: Floats, leaders: Floats) -> list[tuple[int, float]]:
    """For each of a block its most similar leader, and how similar that is."""
    if not len(leaders):
        return [(0, -1.0)] * len(block)
    likeness = block @ leaders.T
    best = likeness.argmax(1)
    return list(zip(best.tolist(), likeness[np.arange(len(block)), best].tolist(), strict=True))
