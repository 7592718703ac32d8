"""Pictures of 256 pixels as they travel to a GPU: painted, compressed (WebP), thousands in one file."""

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import dataset, scenes, sources
from .scenes import Scene
from .sources import Drawing
from .stages import NEVER_SHOWN

SIZE, DRAWING = 256, 288  # pixels of a picture, of a drawing
QUALITY = 90


class Packed:
    """Pictures of one file, in their order."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.data, self.ends = file["data"], file["ends"]

    def __len__(self) -> int:
        return len(self.ends)

    def picture(self, i: int) -> np.ndarray:
        """uint8 [3, SIZE, SIZE]."""
        start = self.ends[i - 1] if i else 0
        with Image.open(io.BytesIO(self.data[start : self.ends[i]].tobytes())) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    def batches(self, size: int, device: str) -> Iterator[torch.Tensor]:
        """All, float32 [size, 3, SIZE, SIZE] in [-1, 1] on a device."""
        with ThreadPoolExecutor() as pool:
            for i in range(0, len(self), size):
                images = np.stack(list(pool.map(self.picture, range(i, min(i + size, len(self))))))
                yield torch.from_numpy(images).to(device).float() / 127.5 - 1

    @staticmethod
    def write(path: Path, pictures: Iterator[np.ndarray]) -> None:
        """Pictures uint8 [3, SIZE, SIZE], one after another."""
        parts = [_compressed(picture) for picture in pictures]
        np.savez(path, data=np.frombuffer(b"".join(parts), np.uint8), ends=np.cumsum([len(part) for part in parts]))


def _compressed(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def paint(work: Path, out: Path) -> None:
    """Write what a GPU needs of a work folder: captions, the pictures that are shown, and others for thresholds."""
    seed = json.loads((work / "data.json").read_text(encoding="utf-8"))["seed"]
    known, _ = sources.drawings(work)
    pool, texts = dataset.planned_pool(known, seed)
    shown = dataset.planned(known, texts, seed).scenes
    never = pool[:: max(1, len(pool) // NEVER_SHOWN)]
    table = dict(np.load(work / "dataset.npz"))
    np.savez_compressed(out / "captions.npz", **{name: table[name] for name in table if name != "images"})
    used = sorted({i for scene in [*shown, *never] for i in (scene.drawing, scene.second) if i >= 0})
    pixels = _drawings(known, used, work / "downloads", out / "drawings.npy")
    for name, chosen in {"shown": shown, "never": never}.items():
        Packed.write(out / f"{name}.npz", _painted(chosen, used, pixels))


def _painted(chosen: Sequence[Scene], used: Sequence[int], pixels: np.ndarray) -> Iterator[np.ndarray]:
    at = {drawing: i for i, drawing in enumerate(used)} | {-1: -1}
    for i, scene in enumerate(chosen):
        yield scenes.paint([replace(scene, drawing=at[scene.drawing], second=at[scene.second])], pixels, SIZE)[0]
        if i % 1000 == 999:
            print(f"painted {i + 1} of {len(chosen)}", flush=True)


def _drawings(known: Sequence[Drawing], used: Sequence[int], downloads: Path, cache: Path) -> np.ndarray:
    """Of all drawings those that are used, larger: uint8 [n, 4, DRAWING, DRAWING], kept in `cache`."""
    if not cache.exists():
        part = cache.with_suffix(".part")
        pixels = np.lib.format.open_memmap(part, "w+", np.uint8, (len(used), 4, DRAWING, DRAWING))
        at, i = {drawing: i for i, drawing in enumerate(used)}, 0
        for drawing, rgba in sources.rasterised(downloads, DRAWING):
            if i == len(known) or drawing != known[i]:
                continue  # too faint to be one of them
            if i in at:
                pixels[at[i]] = rgba
            i += 1
        if i < len(known):
            raise SystemExit(f"{downloads}: drawing {i}, {known[i].name!r}, is missing: {known[i].package} is another")
        pixels.flush()
        part.replace(cache)
    return np.load(cache, "r")
