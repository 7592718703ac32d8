"""Labelled prompts of a ground truth's model with training pictures, for the pages that compare the two."""

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from scanner.diffusion.denoiser import Denoiser

from .ground_truth.labels import scaled
from .ground_truth.stages import shrunk

DATASET = "dataset.npz"  # of tools.ground_truth, in the folder of its labels


class Labelled(NamedTuple):
    """A model, the labels of its prompts, and the pictures that it was shown, which lie in the folder of the labels."""

    name: str
    bundle: Path
    labels: Path

    @classmethod
    def parse(cls, argument: str) -> "Labelled":
        """Of NAME=BUNDLE,LABELS."""
        name, _, rest = argument.partition("=")
        bundle, labels = rest.split(",")
        return cls(name, Path(bundle), Path(labels))

    def prompts(self) -> pl.DataFrame:
        """The labels, `nearest` for their `image`, the training picture that generated ones are nearest to, and `own`:
        the number of the picture that the caption was shown with, null for a caption never shown."""
        with np.load(self.labels.parent / DATASET) as kept:
            shown = pl.DataFrame({"prompt": kept["prompts"], "own": kept["image"]})
        own = shown.with_columns(pl.col("own").replace(-1, None))
        return pl.read_parquet(self.labels).rename({"image": "nearest"}).join(own, "prompt", maintain_order="left")

    def latents(self, denoiser: Denoiser, numbers: np.ndarray) -> np.ndarray:
        """The training pictures of these numbers [n], as the VAE encodes them: float32 [n, C, H, W]."""
        return denoiser.encode_images(
            scaled(shrunk(pictures(self.labels.parent / DATASET)[numbers], denoiser.image_size[0]))
        )


@cache
def pictures(path: Path) -> np.ndarray:
    """Those of a dataset: uint8 [n, 3, 64, 64]."""
    with np.load(path) as kept:
        return np.asarray(kept["images"])


def told(what: str, done: int, total: int) -> None:
    """Progress, a line each time."""
    print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


def rewritten(page: str, mark: str, sections: Sequence[str]) -> str:
    """A page of which what follows `mark` has these sections, in place of the former ones of the same models; those of
    others stay. A section's heading names its model, up to a colon."""
    by_hand, _, written = page.partition(mark)
    level = sections[0].split()[0]
    former = re.split(f"^(?={level} )", written, flags=re.MULTILINE)[1:]
    found = {_model(section): section for section in former}
    found |= {_model(section): section for section in sections}
    return "\n\n".join(part.strip() for part in (by_hand + mark, *found.values())) + "\n"


def _model(section: str) -> str:
    return section.strip().partition("\n")[0].partition(":")[0]
