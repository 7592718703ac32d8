"""A picture as data: which drawing stands how on which ground. `paint` turns scenes into pixels, each alone."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .grounds import COLOURS, IMAGE_SIZE, KINDS, colours_of

SECOND = 0.15  # of the pictures show a second, small drawing in a corner
NAMED_COLOURS = 0.3  # of the grounds without a scene have colours that a caption may name


@dataclass(frozen=True)
class Scene:
    """`drawing` on `ground`, and in a corner the small `second` (-1: none); `colours` are the ground's, () for any.

    `seed` decides place, size, turn and all else: two scenes that differ in `second` only differ in that corner only.
    """

    drawing: int
    ground: str
    colours: tuple[str, ...]
    seed: int
    second: int = -1


def new_scene(drawing: int, others: np.ndarray, rng: np.random.Generator) -> Scene:
    """A scene for a drawing; `others`: drawings that may stand in the corner."""
    kinds = list(KINDS)
    ground = kinds[int(rng.integers(len(kinds)))]
    colours: tuple[str, ...] = ()
    if ground in ("plain", "gradient", "radial", "stripes", "checks", "dots") and rng.random() < NAMED_COLOURS:
        colours = tuple(str(c) for c in rng.choice(list(COLOURS), rng.integers(1, 3), replace=False))
    second = int(rng.choice(others)) if rng.random() < SECOND else -1
    return Scene(drawing, ground, colours, int(rng.integers(2**31)), second)


def again(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another picture that the same caption describes: another place, size, turn and shade."""
    return replace(scene, seed=int(rng.integers(2**31)))


def paint(scenes: list[Scene], pixels: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """Pictures uint8 [n, 3, size, size]; `pixels`: all drawings, premultiplied RGBA uint8 [m, 4, side, side]."""
    at_once = 256 * IMAGE_SIZE**2 // size**2
    parts = [_paint(scenes[i : i + at_once], pixels, size) for i in range(0, len(scenes), at_once)]
    return np.concatenate(parts)


def _paint(scenes: list[Scene], pixels: np.ndarray, size: int) -> np.ndarray:
    grounds, main, corner = [], [], []
    for scene in scenes:
        rng = np.random.default_rng(scene.seed)
        draw, _ = KINDS[scene.ground]
        grounds.append(draw(colours_of(scene.colours, rng), rng, size))
        main.append(_affine(rng, scale=(0.5, 0.95), reach=0.8, turn=0.4))
        corner.append(_affine(rng, scale=(0.25, 0.35), reach=1.0, turn=0.3, edge=True))
    image = torch.from_numpy(np.clip(np.stack(grounds), 0, 1)).float()
    image = _lay(image, torch.from_numpy(pixels[[s.drawing for s in scenes]]), torch.stack(main))
    small = np.stack([pixels[s.second] if s.second >= 0 else np.zeros_like(pixels[0]) for s in scenes])
    image = _lay(image, torch.from_numpy(small), torch.stack(corner))
    return (image * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _affine(
    rng: np.random.Generator, scale: tuple[float, float], reach: float, turn: float, edge: bool = False
) -> torch.Tensor:
    """From picture to drawing coordinates, float32 [2, 3]: random size, place, turn and flip; `edge`: in a corner."""
    size, angle, flip = rng.uniform(*scale), rng.uniform(-turn, turn), rng.choice([-1.0, 1.0])
    place = rng.choice([-0.9, 0.9], 2) if edge else rng.uniform(-1, 1, 2)
    shift = place * (1 - size) * reach
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    rotation = np.array([[cos * flip, -sin * flip], [sin, cos]])
    return torch.from_numpy(np.concatenate([rotation, -(rotation @ shift)[:, None]], 1)).float()


def _lay(image: torch.Tensor, rgba: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Drawings uint8 [n, 4, side, side] over pictures float32 [n, 3, size, size]."""
    grid = F.affine_grid(affine, [len(rgba), 4, *image.shape[2:]], align_corners=False)
    layer = F.grid_sample(rgba.float() / 255, grid, align_corners=False)
    return layer[:, :3] + (1 - layer[:, 3:]) * image
