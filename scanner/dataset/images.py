"""Images in and out: bytes or files <-> float32 [3, h, w] in [-1, 1]. The only module that imports Pillow."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from scanner.diffusion.schedule import Array
from scanner.errors import InputError, ScannerError, first_line


def read(path: Path, height: int, width: int) -> Array:
    """The image of a file at a model's size, float32 [3, height, width]. Raises InputError where it cannot be read."""
    try:
        return decode(path.read_bytes(), height, width)
    except (InputError, OSError) as error:
        raise InputError(f"{path}: no readable image ({first_line(error)})") from error


def decode(data: bytes, height: int, width: int) -> Array:
    """The image in a file's bytes, float32 [3, height, width].

    As large as covers the size, cut to it around the centre, on white. Raises InputError.
    """
    pillow = _pillow()
    from PIL import ImageOps

    try:
        with pillow.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except Exception as error:  # Pillow's codecs raise what they like for damaged files
        raise InputError(f"no readable image ({first_line(error)})") from error
    flat = pillow.alpha_composite(pillow.new("RGBA", upright.size, "white"), upright).convert("RGB")
    fitted = ImageOps.fit(flat, (width, height), pillow.Resampling.BICUBIC)
    return np.asarray(np.asarray(fitted, np.float32).transpose(2, 0, 1) / np.float32(127.5) - 1, np.float32)


def png(image: Array) -> bytes:
    """A PNG file of an image [3, h, w]; what lies outside [-1, 1] is cut."""
    pixels = ((np.clip(image, -1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
    stream = io.BytesIO()
    _pillow().fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ScannerError('images need Pillow: pip install "overscan[images]"') from error
    return Image
