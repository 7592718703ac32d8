"""Images in and out: bytes or files <-> float32 [3, h, w] in [-1, 1]. The only module that imports Pillow."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from engines.installed import install_line
from scanner.diffusion.prediction import Array
from scanner.errors import InputError, ScannerError, first_line

LARGEST = 1 << 26  # pixels that are decoded; a file of 20 kB may declare many more
LARGE = 1 << 24  # pixels of an image that is made smaller before anything else
ENOUGH = 4  # times the model's size in each direction that it keeps


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
        with warnings.catch_warnings(action="ignore"), pillow.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > LARGE:
                opened.draft("RGB", (ENOUGH * width, ENOUGH * height))  # a JPEG, decoded smaller
            _check_size(*opened.size)
            upright = ImageOps.exif_transpose(_reduced(opened, ENOUGH * width, ENOUGH * height)).convert("RGBA")
    except InputError:
        raise
    except Exception as error:  # Pillow's codecs raise what they like for damaged files
        raise InputError(f"no readable image ({first_line(error)})") from error
    flat = pillow.alpha_composite(pillow.new("RGBA", upright.size, "white"), upright).convert("RGB")
    fitted = ImageOps.fit(flat, (width, height), pillow.Resampling.BICUBIC)
    return np.asarray(np.asarray(fitted, np.float32).transpose(2, 0, 1) / np.float32(127.5) - 1, np.float32)


def _reduced(image: Any, width: int, height: int) -> Any:
    """A large image by whole factors, not below this size: what follows makes several copies of it."""
    factor = min(image.width // width, image.height // height)
    if image.width * image.height <= LARGE or factor < 2:
        return image
    exif = image.getexif()
    smaller = image.convert("RGBA" if image.has_transparency_data else "RGB").reduce(factor)
    smaller.info["exif"] = exif.tobytes()  # which way is up
    return smaller


def _check_size(width: int, height: int) -> None:
    """Raises InputError for an image whose pixels, as its header declares them, would fill the memory."""
    if width * height > LARGEST:
        raise InputError(
            f"an image of {width:,} x {height:,} pixels; needed {LARGEST:,} pixels or fewer: scale it down"
        )


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
        raise ScannerError(f"images need Pillow: {install_line('images')}") from error
    return Image
