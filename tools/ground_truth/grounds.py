"""Grounds on which drawings stand: gradients, textures and simple scenes.

A ground is a function of two colours [2, 3] in [0, 1], random numbers and a size; it returns float [3, size, size] in
[0, 1].
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

IMAGE_SIZE = 64  # pixels; others are multiples of it
COLOURS = {  # as captions name them: RGB in [0, 1]
    "red": (0.85, 0.1, 0.1), "orange": (1.0, 0.55, 0.1), "yellow": (0.95, 0.9, 0.2), "green": (0.15, 0.6, 0.2),
    "teal": (0.1, 0.6, 0.6), "blue": (0.15, 0.3, 0.85), "purple": (0.5, 0.2, 0.7), "pink": (1.0, 0.6, 0.75),
    "brown": (0.45, 0.27, 0.12), "black": (0.07, 0.07, 0.07), "gray": (0.5, 0.5, 0.5), "white": (0.95, 0.95, 0.95),
}  # fmt: skip
Colours = np.ndarray
Ground = Callable[[Colours, np.random.Generator, int], np.ndarray]


@lru_cache
def axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """How far down and how far right each pixel lies, [size, size] in [0, 1]."""
    along = np.linspace(0, 1, size, dtype=np.float32)
    down, right = np.meshgrid(along, along, indexing="ij")
    return down, right


def mix(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`share` [size, size] of the second colour [3] or picture [3, size, size], the rest of the first."""
    first, second = (c[:, None, None] if c.ndim == 1 else c for c in (first, second))
    return first * (1 - share) + second * share


def plain(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    return mix(0.06 * rng.standard_normal((size,) * 2), colours[0], colours[1])


def gradient(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = axes(size)
    along = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    return mix(np.clip(along / 1.4 + 0.5, 0, 1), *colours)


def radial(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    down, right = axes(size)
    x, y = rng.uniform(0.2, 0.8, 2)
    return mix(np.clip(np.hypot(right - x, down - y) / 0.8, 0, 1), *colours)


def stripes(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.15, 0.5)
    y, x = axes(size)
    along = x * np.cos(angle) + y * np.sin(angle)
    return mix(np.clip(4 * np.sin(2 * np.pi * (along / period + rng.uniform())) / 2 + 0.5, 0, 1), *colours)


def checks(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    period, shift = rng.uniform(0.25, 0.6), rng.uniform(0, 1, 2)
    y, x = axes(size)
    wave = np.sin(2 * np.pi * (x / period + shift[0])) * np.sin(2 * np.pi * (y / period + shift[1]))
    return mix(np.clip(4 * wave + 0.5, 0, 1), *colours)


def dots(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    period, radius = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.35)
    x, y = ((axis / period + rng.uniform()) % 1 - 0.5 for axis in reversed(axes(size)))
    return mix(np.clip((radius - np.hypot(x, y)) * 8 + 0.5, 0, 1), *colours)


def clouds(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth random blotches."""
    coarse = rng.uniform(-0.3, 1.3, (5, 5))
    at = np.linspace(0, 4, size)
    rows = np.stack([np.interp(at, range(5), column) for column in coarse.T], 1)
    return mix(np.clip(np.stack([np.interp(at, range(5), row) for row in rows]), 0, 1), *colours)


def _scene(sky: tuple, low_sky: tuple, ground: tuple, ripple: float = 0.0) -> Ground:
    """A sky over a ground, with a horizon that may be hilly; a third of the picture takes the given colours' hue."""

    def draw(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
        y, x = axes(size)
        tint = 0.15 * (colours - 0.5)
        horizon = rng.uniform(0.45, 0.75)
        hills = ripple * np.sin(2 * np.pi * (x * rng.uniform(0.7, 2) + rng.uniform()))
        above = mix(np.clip(y / horizon, 0, 1), np.array(sky) + tint[0], np.array(low_sky) + tint[0])
        below = mix(np.clip((y - horizon) / (1 - horizon), 0, 1), np.array(ground) + tint[1], np.array(ground) * 0.7)
        return mix(np.clip((y - horizon - hills) * 32 + 0.5, 0, 1), above, below)

    return draw


def night(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    sky = mix(axes(size)[0], np.array((0.02, 0.03, 0.15)), np.array((0.15, 0.15, 0.4)) + 0.1 * (colours[0] - 0.5))
    star = size // IMAGE_SIZE  # pixels
    for x, y in rng.integers(0, IMAGE_SIZE, (2, 25)).T * star:
        sky[:, y : y + star, x : x + star] = 0.9
    return sky


def room(colours: Colours, rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = axes(size)
    floor = rng.uniform(0.6, 0.8)
    wall = mix(np.clip(np.sin(2 * np.pi * x * 6) * 0.2, 0, 1), colours[0] * 0.5 + 0.45, colours[0])
    boards = mix(
        np.clip(np.sin(2 * np.pi * y * 12) * 0.5, 0, 1), np.array((0.55, 0.36, 0.2)), np.array((0.4, 0.25, 0.13))
    )
    return mix((floor < y).astype(np.float32), wall, boards)


KINDS: dict[str, tuple[Ground, tuple[str, ...]]] = {  # kind -> how it is drawn, what captions call it
    "plain": (plain, ()),
    "gradient": (gradient, ()),
    "radial": (radial, ()),
    "clouds": (clouds, ("in the fog", "on a blurry background", "watercolor")),
    "stripes": (stripes, ("on stripes", "on striped wallpaper", "with a striped background", "striped")),
    "checks": (checks, ("on a checkered tablecloth", "on a chequered background", "on checks")),
    "dots": (dots, ("with dots", "on polka dots", "on dotted paper", "with a spotted background")),
    "meadow": (_scene((0.35, 0.6, 0.95), (0.75, 0.87, 1.0), (0.35, 0.65, 0.25), 0.03),
               ("on a meadow", "in the grass", "in a field", "outside in summer")),
    "hills": (_scene((0.45, 0.65, 0.9), (0.85, 0.9, 0.95), (0.3, 0.5, 0.3), 0.12),
              ("in the hills", "in the mountains", "before the hills")),
    "beach": (_scene((0.3, 0.65, 0.95), (0.2, 0.55, 0.8), (0.93, 0.84, 0.6), 0.01),
              ("at the beach", "on the sand", "by the sea", "on holiday")),
    "sea": (_scene((0.6, 0.8, 0.95), (0.85, 0.93, 1.0), (0.1, 0.35, 0.65), 0.01),
            ("on the water", "at sea", "in the ocean")),
    "sunset": (_scene((0.35, 0.2, 0.5), (1.0, 0.6, 0.3), (0.25, 0.13, 0.15), 0.03),
               ("at sunset", "in the evening", "at dusk")),
    "snow": (_scene((0.6, 0.7, 0.85), (0.8, 0.85, 0.92), (0.95, 0.96, 1.0), 0.05),
             ("in the snow", "in winter", "on a snowy day")),
    "desert": (_scene((0.5, 0.75, 0.95), (0.95, 0.88, 0.75), (0.85, 0.6, 0.35), 0.08), ("in the desert", "on dunes")),
    "night": (night, ("at night", "under the stars", "in the dark", "in space")),
    "room": (room, ("in a room", "indoors", "at home", "on the floor")),
}  # fmt: skip


def colours_of(names: tuple[str, ...], rng: np.random.Generator) -> Colours:
    """Two colours [2, 3]: as named, a little off, or any."""
    if not names:
        return rng.uniform(0, 1, (2, 3))
    named = np.array([COLOURS[names[0]], COLOURS[names[-1]]])
    return np.clip(named + 0.08 * rng.standard_normal((2, 3)), 0, 1)
