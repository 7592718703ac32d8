"""How alike two images are: correlation of pixels, SSIM, and a copy detector of the user's own."""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from engines import Engine, EngineError, open_onnx
from scanner.dataset import images as files
from scanner.diffusion.prediction import Array

Floats = NDArray[np.float64]
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. (2004)
FLAT = 1e-6  # RMS contrast below which an image has none but rounding
DATA_RANGE = 2.0  # images lie in [-1, 1]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what SSCD and DINO were trained with


def correlation(images: Array, others: Array) -> Floats:
    """Of every image [N, 3, h, w] with every other [M, 3, h, w], in [-1, 1]: float64 [N, M].

    The correlation of pixels, each channel less its mean: with the means left in, two pictures of different things on
    orange would look alike. NaN where an image has flat channels only.
    """
    return np.asarray(_units(images) @ _units(others).T)


def _units(images: Array) -> Floats:
    pixels = np.clip(images.astype(np.float64), -1, 1)
    flat = (pixels - pixels.mean((2, 3), keepdims=True)).reshape(len(pixels), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(norm > FLAT * np.sqrt(flat.shape[1]), norm, np.nan))


def ssim(images: Array, others: Array) -> Floats:
    """Structural similarity of every image [N, 3, h, w] with every other [M, 3, h, w], at most 1: float64 [N, M].

    Wang, Bovik, Sheikh, Simoncelli (2004): Gaussian window of 11 pixels, sigma 1.5, where it fits wholly; mean over
    positions and channels. Needs images of 11 pixels or more.
    """
    a, b = (np.clip(side.astype(np.float64), -1, 1) for side in (images, others))
    return np.array([[_ssim(one, other) for other in b] for one in a])


def _ssim(a: Floats, b: Floats) -> float:
    c1, c2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2
    mean_a, mean_b = _smooth(a), _smooth(b)
    var_a, var_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float((luminance * structure).mean())


def _smooth(image: Floats) -> Floats:
    """Gaussian mean around each position, [3, h - 10, w - 10]."""
    window = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
    window /= window.sum()
    rows = sliding_window_view(image, WINDOW, axis=1) @ window
    return np.asarray(sliding_window_view(rows, WINDOW, axis=2) @ window)


class Descriptor:
    """A network in an ONNX file that describes an image by a vector, such as SSCD or DINO; copies have a cosine near 1.

    One input, float32 [N, 3, h, w] with ImageNet's normalisation, and one output [N, D]. Raises EngineError.
    """

    def __init__(self, path: Path):
        self._engine: Engine = open_onnx(path)
        inputs, outputs = self._engine.inputs, self._engine.outputs
        shapes = [spec.shape for spec in (*inputs.values(), *outputs.values())]
        if len(inputs) != 1 or len(outputs) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or len(shapes[1]) != 2:
            raise EngineError(
                f"{path}: takes {dict(inputs)} and gives {dict(outputs)}; needed one image [N, 3, h, w] in and one "
                "embedding [N, D] out: export the descriptor so"
            )
        if shapes[0][2] is None or shapes[0][3] is None:
            raise EngineError(f"{path}: its image has no fixed size: export the descriptor at the size it was made for")
        (self._input,), (self._output,) = inputs, outputs
        self._size = shapes[0][2], shapes[0][3]

    def similarity(self, images: Array, others: Array) -> Floats:
        """Cosine of the embeddings of every image [N, 3, h, w] with every other [M, 3, h, w]: float64 [N, M]."""
        a, b = (np.stack([self._embed(image) for image in side]) for side in (images, others))
        return a @ b.T

    def _embed(self, image: Array) -> Floats:
        """A vector of length 1."""
        resized = files.decode(files.png(image), *self._size)
        mean, std = (np.reshape(numbers, (3, 1, 1)) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
        feed = (((resized + 1) / 2 - mean) / std).astype(np.float32)
        vector = self._engine.run({self._input: feed[None]})[self._output][0].astype(np.float64)
        return np.asarray(vector / np.linalg.norm(vector))
