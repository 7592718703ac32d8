"""Whether the shortcuts of the labels change them, and pictures to look at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from engines import open_bundle
from scanner.diffusion.denoiser import Denoiser

from . import labels
from .dataset import Dataset
from .similarity import Gauge
from .towers import ImageTower

GRID = [("fixed", 64), ("fixed", 24), ("fixed", 12), ("fixed", 6), ("fixed", 1), ("varied", 64), ("template", 2),
        ("retrieval", 4), ("edited", 0), ("held_out", 0)]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A table of labels and what it was measured with."""

    table: pl.DataFrame
    tower: ImageTower
    pixels: Gauge
    vectors: Gauge

    def relabelled(self, denoiser: Denoiser, prompts: list[str], folder: Path) -> pl.DataFrame:
        """Both labels of prompts from four seeds and 50 steps, beside those of the table."""
        images = labels.generated(denoiser, prompts, labels.SEEDS, labels.STEPS, folder)
        found = [labels.measure(picture, self.tower, self.pixels, self.vectors) for picture in images]
        again = pl.DataFrame(
            {
                "prompt": prompts,
                "label_again": [labels.label(m["pixel"]["copied_seeds"]) for m in found],
                "tower_label_again": [labels.label(m["tower"]["copied_seeds"]) for m in found],
            },
            schema_overrides={"label_again": pl.Boolean, "tower_label_again": pl.Boolean},
        )
        return again.join(self.table, on="prompt", how="left", maintain_order="left")


def changed(again: pl.DataFrame) -> dict[str, int]:
    """How many prompts, and how many labels of each kind that are not what they were."""
    differs = {
        name: int(again.select((pl.col(name).ne_missing(pl.col(f"{name}_again"))).sum()).item())
        for name in ("label", "tower_label")
    }
    return {"prompts": len(again)} | differs


def cheap(measured: Measured, denoiser: Denoiser, n: int, folder: Path) -> dict[str, int]:
    """Labels that change when `n` prompts that two seeds and 25 steps cleared are generated in full."""
    cleared = measured.table.filter("two_seeds_only")["prompt"]
    chosen = cleared.sample(min(n, len(cleared)), seed=0, shuffle=True).to_list()
    return changed(measured.relabelled(denoiser, chosen, folder / "cheap-check"))


def precision(measured: Measured, bundle: Path, n: int, folder: Path) -> dict[str, int]:
    """Labels that change when `n` prompts, half of them memorized, are generated in float32."""
    full = measured.table.filter(~pl.col("two_seeds_only"))
    kinds = (full.filter(pl.col("label").eq_missing(True)), full.filter(pl.col("label").ne_missing(True)))
    chosen = [p for part in kinds for p in part["prompt"].sample(min(n // 2, len(part)), seed=0).to_list()]
    denoiser = Denoiser(open_bundle(bundle, "openvino", "float32"), batch_size=128)
    return changed(measured.relabelled(denoiser, chosen, folder / "float32-check"))


def training_grid(data: Dataset, out: Path, rows: int = 8, columns: int = 12) -> list[str]:
    """A picture of random training pictures, and their captions in the same order."""
    chosen = np.random.default_rng(0).choice(len(data.images), rows * columns, replace=False)
    _write(data.images[chosen].reshape(rows, columns, *data.images.shape[1:]), out, 1)
    first = dict(reversed(data.rows.tolist()))
    return [str(data.prompts[first[int(i)]]) for i in chosen]


def sample_grid(denoiser: Denoiser, data: Dataset, table: pl.DataFrame, out: Path) -> list[str]:
    """A picture: a row per prompt, the nearest training picture as the VAE sees it, then four seeds; a line per row."""
    found = [table.filter(role=role, duplicates=times) for role, times in GRID]
    rows = [part.row(0, named=True) for part in [*found, table.filter("collapsed")] if len(part)]
    generated = labels.generate(denoiser, [row["prompt"] for row in rows], labels.SEEDS, labels.STEPS)
    picture_rows(denoiser, data.images[[row["image"] for row in rows]], generated, out)
    return [
        f"{row['prompt']!r} ({row['role']} x{row['duplicates']}): {row['copied_seeds']} seeds copy, similarity "
        f"{row['similarity']:.2f}, tower {row['tower_similarity']:.2f}, cross-seed {row['cross_seed_similarity']:.2f}"
        for row in rows
    ]


def picture_rows(denoiser: Denoiser, nearest: np.ndarray, generated: np.ndarray, out: Path) -> None:
    """A picture, a row per prompt: a training picture uint8 [n, 3, h, w] as the VAE sees it, then those that were
    generated, uint8 [n, S, 3, h, w]."""
    shown = denoiser.decode(denoiser.encode_images(labels.scaled(nearest)))
    seen = ((np.clip(shown, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    _write(np.concatenate([seen[:, None], generated], 1), out, 2)


def _write(cells: np.ndarray, out: Path, zoom: int) -> None:
    """Pictures uint8 [rows, columns, 3, h, w] as one file."""
    r, c, _, h, w = cells.shape
    sheet = Image.fromarray(cells.transpose(0, 3, 1, 4, 2).reshape(r * h, c * w, 3))
    sheet.resize((c * w * zoom, r * h * zoom), Image.Resampling.NEAREST).save(out)
