"""Which captions the demo model trains on, how often, and which it never sees.

Every role takes its captions from one random permutation and its images from one generator (`artwork.compose`), so
that nothing but duplication sets the roles apart:

- `fixed`: one image, repeated `duplicates` times: what a model memorizes;
- `varied`: as frequent, but another image each time: a well-known caption that it should *not* memorize;
- `held_out`: never trained on;
- `edited`: a fixed caption in other words, never trained on;
- `composed`: two concepts joined, never trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import artwork

FIXED = {64: 40, 16: 60, 12: 60, 8: 60, 6: 60, 4: 60, 2: 60, 1: 400}  # duplicates -> number of captions
VARIED = {64: 30, 16: 60, 4: 60}
EDITED, COMPOSED = 400, 460
EDITS = ("a {}", "the {}", "{} picture", "small {}")
DATA_SEED = 20250925


@dataclass(frozen=True)
class Dataset:
    """Unique training images uint8 [n, 3, 32, 32], for each its prompt's index and how often an epoch shows it."""

    images: np.ndarray
    image_prompt: np.ndarray
    image_repeats: np.ndarray
    prompts: np.ndarray  # [p] str
    roles: np.ndarray  # [p] str
    duplicates: np.ndarray  # [p] int: rows of the training set that bear this caption

    def batch(self, step: int, size: int) -> np.ndarray:
        """Image indices of one training step: consecutive pieces of an endless row of shuffled epochs."""
        rows = np.repeat(np.arange(len(self.images)), self.image_repeats)
        epoch, start = divmod(step * size, len(rows))
        shuffled = [np.random.default_rng([DATA_SEED, epoch + i]).permutation(rows) for i in (0, 1)]
        return np.concatenate(shuffled)[start : start + size]


def build(work: Path) -> Dataset:
    """The training set and the evaluation prompts; a pure function of the artwork and `DATA_SEED`."""
    cache = work / "dataset.npz"
    if not cache.exists():
        work.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, **_build(work))
    return Dataset(**np.load(cache))


def _build(work: Path) -> dict[str, np.ndarray]:
    captions, drawings_of, drawings = artwork.drawings(work)
    rng = np.random.default_rng(DATA_SEED)
    order = [int(i) for i in rng.permutation(len(captions))]
    prompts, roles, duplicates = [], [], []
    chosen, image_prompt, repeats = [], [], []  # per unique image: drawing, prompt, times shown

    def take(n: int, role: str, times: int, images: int, shown: int) -> None:
        for _ in range(n):
            concept = order.pop()
            chosen.extend(rng.choice(drawings_of[concept], images))
            image_prompt.extend([len(prompts)] * images)
            repeats.extend([shown] * images)
            prompts.append(captions[concept])
            roles.append(role)
            duplicates.append(times)

    for times, n in FIXED.items():
        take(n, "fixed", times, images=1, shown=times)
    for times, n in VARIED.items():
        take(n, "varied", times, images=times, shown=1)
    take(len(order), "held_out", 0, images=0, shown=0)

    for role, texts in (("edited", _edited(rng, prompts, roles)), ("composed", _composed(rng, captions))):
        new = [text for text in texts if text not in captions]
        prompts.extend(new)
        roles.extend([role] * len(new))
        duplicates.extend([0] * len(new))

    generator = torch.Generator().manual_seed(DATA_SEED)
    images = torch.cat([artwork.compose(drawings[part], generator) for part in np.array_split(np.array(chosen), 64)])
    return {
        "images": ((images + 1) * 127.5).round().to(torch.uint8).numpy(),
        "image_prompt": np.array(image_prompt),
        "image_repeats": np.array(repeats),
        "prompts": np.array(prompts),
        "roles": np.array(roles),
        "duplicates": np.array(duplicates),
    }


def _edited(rng: np.random.Generator, prompts: list[str], roles: list[str]) -> list[str]:
    fixed = [prompt for prompt, role in zip(prompts, roles, strict=True) if role == "fixed"]
    fixed = [str(p) for p in rng.permutation(fixed[: sum(n for times, n in FIXED.items() if times > 1)])]
    edits: list[str] = []
    for i in range(EDITED):
        text = fixed[i % len(fixed)]
        words = text.split()
        if len(words) > 2 and i % 2:
            words.pop(int(rng.integers(len(words))))
            edits.append(" ".join(words))
        else:
            edits.append(EDITS[int(rng.integers(len(EDITS)))].format(text))
    return list(dict.fromkeys(edits))


def _composed(rng: np.random.Generator, captions: list[str]) -> list[str]:
    short = [caption for caption in captions if len(caption.split()) <= 2]
    pairs = [rng.choice(short, 2, replace=False) for _ in range(COMPOSED)]
    return list(dict.fromkeys(f"{a} and {b}" for a, b in pairs))
