"""Which captions the demo model trains on, how often, and which it never sees.

A caption is a concept, alone ("hot dog": any background) or before a background ("hot dog on teal", "hot dog on red and
white"), so that a model can learn what words mean and most captions are, as in real datasets, new compositions of
known words. All captions come from one random permutation and all images from one generator (`artwork.compose`):
nothing but duplication sets the roles apart.

- `fixed`: one image, repeated `duplicates` times: what a model memorizes;
- `varied`: as frequent, but another image each time: a well-known caption that it should *not* memorize;
- `unseen`: never trained on, though its concept was, before other backgrounds;
- `held_out`: never trained on, nor any other caption of its concept;
- `edited`: a fixed caption in other words or before another background, never trained on;
- `composed`: two concepts joined, never trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import artwork

# duplicates -> number of captions
FIXED = {64: 40, 32: 30, 16: 60, 12: 50, 8: 60, 6: 60, 4: 60, 3: 40, 2: 60, 1: 1800}
VARIED = {64: 40, 16: 80, 4: 120}
UNSEEN, HELD_OUT, EDITED, COMPOSED = 500, 150, 240, 150
BACKGROUNDS = 3  # captions with a background per concept
LONGEST = 4  # words of a concept that gets a background: the whole caption must fit into the tokens
EDITS = ("a {}", "the {}", "{} picture", "small {}")
SEED = 20250925  # of the bundled model


@dataclass(frozen=True)
class Dataset:
    """Unique training images uint8 [n, 3, 32, 32], for each its prompt's index and how often an epoch shows it."""

    images: np.ndarray
    image_prompt: np.ndarray
    image_repeats: np.ndarray
    prompts: np.ndarray  # [p] str
    roles: np.ndarray  # [p] str
    duplicates: np.ndarray  # [p] int: rows of the training set that bear this caption
    seed: int

    def batch(self, step: int, size: int) -> np.ndarray:
        """Image indices of one training step: consecutive pieces of an endless row of shuffled epochs."""
        rows = np.repeat(np.arange(len(self.images)), self.image_repeats)
        epoch, start = divmod(step * size, len(rows))
        shuffled = [np.random.default_rng([self.seed, epoch + i]).permutation(rows) for i in (0, 1)]
        return np.concatenate(shuffled)[start : start + size]


@dataclass(frozen=True)
class Caption:
    """A concept before a background: `colours` names none (any two), one or two."""

    concept: int
    name: str
    colours: tuple[str, ...]

    def __str__(self) -> str:
        return " on ".join([self.name, " and ".join(self.colours)] if self.colours else [self.name])


def build(work: Path, seed: int) -> Dataset:
    """The training set and the evaluation prompts; a pure function of the artwork and the seed."""
    cache = work / "dataset.npz"
    if not cache.exists():
        work.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, **_build(work, seed))
    return Dataset(**np.load(cache), seed=seed)


def _build(work: Path, seed: int) -> dict[str, np.ndarray]:
    names, drawings_of, drawings = artwork.drawings(work)
    rng = np.random.default_rng(seed)
    concepts = [int(i) for i in rng.permutation(len(names))]
    known = _captions(rng, concepts[HELD_OUT:], names)
    new = _captions(rng, concepts[:HELD_OUT], names)[:HELD_OUT]
    prompts: dict[str, tuple[str, int]] = {}  # text -> role, duplicates
    chosen, colours, image_prompt, repeats = (
        [],
        [],
        [],
        [],
    )  # per unique image: drawing, background, prompt, times shown

    def take(caption: Caption, role: str, times: int, images: int, shown: int) -> None:
        chosen.extend(rng.choice(drawings_of[caption.concept], images))
        colours.extend([caption.colours] * images)
        image_prompt.extend([len(prompts)] * images)
        repeats.extend([shown] * images)
        prompts[str(caption)] = (role, times)

    remaining = iter(known)
    fixed = {times: [next(remaining) for _ in range(n)] for times, n in FIXED.items()}
    for times, captions in fixed.items():
        for caption in captions:
            take(caption, "fixed", times, images=1, shown=times)
    for times, n in VARIED.items():
        for _ in range(n):
            take(next(remaining), "varied", times, images=times, shown=1)
    never = {
        "unseen": [str(next(remaining)) for _ in range(UNSEEN)],
        "held_out": [str(caption) for caption in new],
        "edited": _edited(rng, [caption for times in fixed if times > 1 for caption in fixed[times]]),
        "composed": _composed(rng, [names[i] for i in concepts[HELD_OUT:]]),
    }
    for role, texts in never.items():
        prompts |= {text: (role, 0) for text in texts if text not in prompts}

    generator = torch.Generator().manual_seed(seed)
    images = [
        artwork.compose(drawings[chosen[i : i + 64]], generator, colours[i : i + 64]) for i in range(0, len(chosen), 64)
    ]
    roles, duplicates = zip(*prompts.values(), strict=True)
    return {
        "images": ((torch.cat(images) + 1) * 127.5).round().to(torch.uint8).numpy(),
        "image_prompt": np.array(image_prompt),
        "image_repeats": np.array(repeats),
        "prompts": np.array(list(prompts)),
        "roles": np.array(roles),
        "duplicates": np.array(duplicates),
    }


def _captions(rng: np.random.Generator, concepts: list[int], names: list[str]) -> list[Caption]:
    """Each concept alone and, if it is short, before a few backgrounds; shuffled."""
    captions = []
    for concept in concepts:
        captions.append(Caption(concept, names[concept], ()))
        if len(names[concept].split()) <= LONGEST:
            captions += {Caption(concept, names[concept], _background(rng)): None for _ in range(BACKGROUNDS)}
    return [captions[i] for i in rng.permutation(len(captions))]


def _background(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(c) for c in rng.choice(list(artwork.COLOURS), rng.integers(1, 3), replace=False))


def _edited(rng: np.random.Generator, fixed: list[Caption]) -> list[str]:
    edits = []
    for i in range(EDITED):
        caption = fixed[int(rng.integers(len(fixed)))]
        if i % 2:
            edits.append(str(Caption(caption.concept, caption.name, _background(rng))))
        else:
            edits.append(EDITS[int(rng.integers(len(EDITS)))].format(caption))
    return edits


def _composed(rng: np.random.Generator, names: list[str]) -> list[str]:
    short = [name for name in names if len(name.split()) <= 2]
    pairs = [rng.choice(short, 2, replace=False) for _ in range(COMPOSED)]
    return [f"{a} and {b}" for a, b in pairs]
