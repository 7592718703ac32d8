"""Emoji artwork as captioned images: fetch the icon sets, rasterise them, compose training images.

The sets and their licences (see NOTICE): Noto Emoji and its first version (Apache-2.0), Fluent Emoji Flat (MIT).
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image

ICON_SETS = {  # npm package -> sha256 of its tarball; the first set decides which concepts exist
    "@iconify-json/noto@1.2.9": "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "@iconify-json/noto-v1@1.2.5": "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    "@iconify-json/fluent-emoji-flat@1.2.6": "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
}
DRAWING_SIZE = 72  # pixels of a rasterised drawing
CANVAS_SIZE = 64  # an image is composed at this size, then averaged down to IMAGE_SIZE
IMAGE_SIZE = 32
COLOURS = {  # of backgrounds, as captions name them: RGB in [0, 1]
    "red": (0.85, 0.1, 0.1), "orange": (1.0, 0.55, 0.1), "yellow": (0.95, 0.9, 0.2), "green": (0.15, 0.6, 0.2),
    "teal": (0.1, 0.6, 0.6), "blue": (0.15, 0.3, 0.85), "purple": (0.5, 0.2, 0.7), "pink": (1.0, 0.6, 0.75),
    "brown": (0.45, 0.27, 0.12), "black": (0.07, 0.07, 0.07), "gray": (0.5, 0.5, 0.5), "white": (0.95, 0.95, 0.95),
}  # fmt: skip
COLOUR_SPREAD = 0.08  # standard deviation of a named colour's channels


def icons(package: str, folder: Path) -> dict[str, dict]:
    """The icons of one npm package, downloaded once by `npm pack` and checked against its hash."""
    tarball = folder / (package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not tarball.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if found != ICON_SETS[package]:
        raise SystemExit(f"{tarball}: sha256 {found}, needed {ICON_SETS[package]}: delete it and run again")
    with tarfile.open(tarball) as tar:
        table = json.load(tar.extractfile("package/icons.json"))
    size = {"width": table["width"], "height": table["height"]}
    return {name: size | icon for name, icon in table["icons"].items() if "skin-tone" not in name}


def rasterise(icon: dict) -> np.ndarray:
    """An icon as premultiplied RGBA, uint8 [4, DRAWING_SIZE, DRAWING_SIZE]."""
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWING_SIZE, height=DRAWING_SIZE)
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((DRAWING_SIZE,) * 2), np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba.round().astype(np.uint8).transpose(2, 0, 1)


def drawings(work: Path) -> tuple[list[str], list[np.ndarray], torch.Tensor]:
    """Every concept that the first set and at least one other draw.

    Returns the captions [n], for each the indices of its drawings, and all drawings uint8 [m, 4, size, size].
    """
    first, *others = (icons(package, work / "npm") for package in ICON_SETS)
    names = sorted(name for name in first if any(name in other for other in others))
    cache = work / f"drawings-{DRAWING_SIZE}.npz"
    owners = [name for name in names for icon_set in (first, *others) if name in icon_set]
    if not cache.exists():
        rendered = [rasterise(icon_set[name]) for name in names for icon_set in (first, *others) if name in icon_set]
        np.savez_compressed(cache, drawings=np.stack(rendered))
    concept_of = np.array([names.index(name) for name in owners])
    captions = [name.replace("-", " ") for name in names]
    return (
        captions,
        [np.flatnonzero(concept_of == i) for i in range(len(names))],
        torch.from_numpy(np.load(cache)["drawings"]),
    )


def compose(
    rgba: torch.Tensor, generator: torch.Generator, colours: Sequence[tuple[str, ...]] | None = None
) -> torch.Tensor:
    """Each drawing at a random scale, shift, rotation and flip on a two-colour gradient.

    `rgba`: uint8 [N, 4, size, size]; `colours`: for each drawing the names of its background's colours, none for any.
    Returns float32 [N, 3, IMAGE_SIZE, IMAGE_SIZE] in [-1, 1].
    """
    n = len(rgba)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    scale, angle = uniform(0.5, 0.95), uniform(-0.5, 0.5)
    shift = torch.stack([uniform(-1, 1), uniform(-1, 1)], 1) * (1 - scale)[:, None] * 0.8
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rotation = torch.stack([torch.stack([cos * flip, -sin * flip], 1), torch.stack([sin, cos], 1)], 1)  # [N, 2, 2]
    affine = torch.cat([rotation, -rotation @ shift[:, :, None]], 2)  # output to input coordinates
    grid = F.affine_grid(affine, [n, 4, CANVAS_SIZE, CANVAS_SIZE], align_corners=False)
    layer = F.grid_sample(rgba.float() / 255, grid, align_corners=False)

    direction = uniform(0, 2 * torch.pi)
    axis = torch.linspace(-1, 1, CANVAS_SIZE)
    along = axis[None, None, :] * direction.cos()[:, None, None] + axis[None, :, None] * direction.sin()[:, None, None]
    ramp = (along / 2**0.5 / 2 + 0.5)[:, None]  # [N, 1, H, W] in [0, 1]
    ends = _ends([()] * n if colours is None else colours, generator)
    background = ends[0] * (1 - ramp) + ends[1] * ramp
    image = layer[:, :3] + (1 - layer[:, 3:]) * background
    return F.avg_pool2d(image, CANVAS_SIZE // IMAGE_SIZE) * 2 - 1


def _ends(colours: Sequence[tuple[str, ...]], generator: torch.Generator) -> torch.Tensor:
    """The two ends of each gradient, float32 [2, N, 3, 1, 1]."""
    ends = torch.rand(2, len(colours), 3, generator=generator)
    jitter = COLOUR_SPREAD * torch.randn(ends.shape, generator=generator)
    for i, names in enumerate(colours):
        if names:
            named = torch.tensor([COLOURS[names[0]], COLOURS[names[-1]]])
            ends[:, i] = (named + jitter[:, i]).clamp(0, 1)
    return ends[..., None, None]
