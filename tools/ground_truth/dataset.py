"""Pictures and captions as arrays, painted once and kept in the work folder: the pool's, and the diffusion model's."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import captions, scenes
from .roles import Builder, Plan, plan_rows, split
from .scenes import Scene
from .sources import Drawing

SEED = 20261125  # of the main models
POOL_EACH = 3  # pictures per drawing of the pool

FOCUS = {16: 50, 24: 46, 32: 42, 48: 34, 64: 26}  # duplicates on the ladder -> rows in a focused epoch


@dataclass(frozen=True)
class Dataset:
    """Pictures uint8 [n, 3, 64, 64]; rows of an epoch as pairs (picture, caption); and what is known of each caption.

    `duplicates`: rows that bear the caption; `group`: captions that were derived from one another have one number;
    `image`: the picture that belongs to it (its first, or -1).
    """

    images: np.ndarray
    rows: np.ndarray  # [r, 2] int
    prompts: np.ndarray  # [p] str
    roles: np.ndarray  # [p] str
    duplicates: np.ndarray  # [p] int
    group: np.ndarray  # [p] int
    image: np.ndarray  # [p] int
    seed: int

    def batch(self, step: int, size: int) -> np.ndarray:
        """Rows [size, 2] of one training step: consecutive pieces of an endless row of shuffled epochs."""
        epoch, start = divmod(step * size, len(self.rows))
        return np.concatenate([self.epoch(epoch), self.epoch(epoch + 1)])[start : start + size]

    def epoch(self, number: int) -> np.ndarray:
        """All rows, shuffled as in one epoch."""
        return np.random.default_rng([self.seed, number]).permutation(self.rows)

    def focused(self) -> "Dataset":
        """The same with other rows in an epoch: captions of one picture that were shown often are shown about as often
        as one another, so that a short training memorizes many instead of those at the top of the ladder very well."""
        caption = self.rows[:, 1]
        often = (self.roles[caption] == "fixed") & (self.duplicates[caption] >= min(FOCUS))
        first = often & np.r_[True, caption[1:] != caption[:-1]]  # one row of each; a caption's rows are consecutive
        again = [FOCUS[int(duplicates)] for duplicates in self.duplicates[caption[first]]]
        rows = np.concatenate([self.rows[~often], np.repeat(self.rows[first], again, axis=0)])
        return replace(self, rows=rows)


def pool(
    known: list[Drawing], chosen: np.ndarray, each: int, rng: np.random.Generator
) -> tuple[list[Scene], list[str]]:
    """Scenes of the pool's drawings, `each` per drawing, and a caption for each; no caption twice."""
    found: dict[str, Scene] = {}
    for drawing in np.tile(chosen, each):
        scene = scenes.new_scene(int(drawing), chosen, rng)
        found.setdefault(captions.caption(scene, known, rng), scene)
    return list(found.values()), list(found)


def build(work: Path, known: list[Drawing], pixels: np.ndarray, seed: int = SEED, plan: Plan | None = None) -> Dataset:
    """The diffusion model's dataset, cached in `work`; a pure function of drawings, plan and seed."""
    cache = work / "dataset.npz"
    if not cache.exists():
        builder = planned(known, pool_captions(work, known, pixels, seed), seed, plan)
        entries = list(builder.entries.values())
        rows = np.array([(picture, i) for i, entry in enumerate(entries) for picture in entry.rows])
        np.savez(
            cache.with_suffix(".tmp.npz"),
            images=scenes.paint(builder.scenes, pixels),
            rows=rows,
            prompts=np.array(list(builder.entries)),
            roles=np.array([entry.role for entry in entries]),
            duplicates=np.array([len(entry.rows) for entry in entries]),
            group=np.array([entry.group for entry in entries]),
            image=np.array([entry.rows[0] if entry.rows else -1 for entry in entries]),
        )
        cache.with_suffix(".tmp.npz").replace(cache)
    return Dataset(**np.load(cache), seed=seed)


def planned(known: list[Drawing], pool_texts: list[str], seed: int, plan: Plan | None = None) -> Builder:
    """Scenes and captions of the diffusion model's dataset, none of them the pool's."""
    rng = np.random.default_rng(seed)
    _, usable = split(known, rng)
    return plan_rows(known, usable, {text.lower() for text in pool_texts}, plan or Plan(), rng)


def build_pool(work: Path, known: list[Drawing], pixels: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """Pictures uint8 [n, 3, 64, 64] and captions on which text encoder and VAE learn; cached in `work`."""
    cache = work / "pool.npz"
    if not cache.exists():
        found, texts = planned_pool(known, seed)
        np.savez(cache.with_suffix(".tmp.npz"), images=scenes.paint(found, pixels), texts=np.array(texts))
        cache.with_suffix(".tmp.npz").replace(cache)
    table = np.load(cache)
    return table["images"], [str(text) for text in table["texts"]]


def planned_pool(known: list[Drawing], seed: int) -> tuple[list[Scene], list[str]]:
    """Scenes and captions of the pool."""
    chosen, _ = split(known, np.random.default_rng(seed))
    return pool(known, chosen, POOL_EACH, np.random.default_rng([seed, 1]))


def pool_captions(work: Path, known: list[Drawing], pixels: np.ndarray, seed: int) -> list[str]:
    return build_pool(work, known, pixels, seed)[1]
