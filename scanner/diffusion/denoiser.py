"""Family, schedule and engines as one function of x_t, timestep and conditioning. The only file that runs engines."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from engines import Bundle, Engine
from scanner.config import ScanConfig
from scanner.diffusion.families import Conditioning, Network, family, tokenized
from scanner.diffusion.prediction import Array, Prediction
from scanner.diffusion.schedule import Schedule
from scanner.errors import ModelError


class Reading(NamedTuple):
    """What a model gets of a prompt. `ids`: of all tokenizers, equal for two prompts that are one to the
    model; `spans`: [start, end) in characters of each token of the text, in order, up to the tokenizer's length."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class Denoiser:
    """A bundle, opened. Raises EngineError or ModelError.

    `batch_size`: samples per run of the denoising network; results do not depend on it beyond float32 rounding.
    `told_dtype`: of the timestep that the network is told.
    """

    def __init__(self, bundle: Bundle, batch_size: int | None = None):
        manifest = bundle.manifest
        self.latent_shape, self.latent_std = manifest.latent_shape, manifest.latent_std
        self.schedule = Schedule.from_manifest(manifest.schedule, manifest.prediction_type, manifest.grids)
        self.batch_size = default_batch_size(self.latent_shape) if batch_size is None else batch_size
        self._bundle = bundle
        self._family = family(manifest.family)
        self._fixed = manifest.fixed or {}
        lacking = self._family.optional - manifest.components.keys()
        networks = {name: network for name, network in self._family.networks.items() if name not in lacking}
        self._engines = {name: _engine(bundle, name, network) for name, network in networks.items()}
        self._tokenizers = {name: _tokenizer(text) for name, text in bundle.tokenizers.items()}
        network = self._engines[self._family.denoiser]
        self.provider, self.rebuilds = network.provider, network.rebuilds
        self.told_dtype = network.inputs["timestep"].dtype

    @cached_property
    def null(self) -> Conditioning:
        """What the unconditional prediction is conditioned on."""
        return self._family.null(self.encode([""]), self._fixed)

    def resized(self, batch_size: int) -> "Denoiser":
        """Itself, on the same engines, with another batch size."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def guidance(self, asked: float | None) -> float:
        """The guidance scale of steps that are taken: what was asked for, else as the model's sampler takes them.

        Raises ModelError for one that a model with distilled guidance was not made for.
        """
        usual = 1.0 if self._family.distilled else ScanConfig.guidance_scale
        if self._family.distilled and asked not in (None, 1):
            raise ModelError(
                f"{self._bundle.folder}: guidance is distilled into this model, and its sampler takes steps without "
                f"another; guidance scale {asked:g} was asked, needed 1: name --guidance-scale 1"
            )
        return usual if asked is None else asked

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Tokenise and run each text encoder once."""
        return self._family.encode(self._run, self._tokenizers, prompts, self._fixed)

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        """What the model gets of each prompt, without running an engine."""
        each = zip(*(tokenized(tokenizer, prompts) for tokenizer in self._tokenizers.values()), strict=True)
        return [_reading(encodings) for encodings in each]

    def predict(self, x_t: Array, timestep: int, conditioning: Conditioning) -> Prediction:
        """The clean latents and the noise predicted for latents float32 [B, S, C, H, W].

        `conditioning` holds B prompts, or one that serves all.
        """
        B, S = x_t.shape[:2]
        samples = np.ascontiguousarray(x_t).reshape(B * S, *self.latent_shape)
        prompt = np.repeat(np.arange(B), S) if len(conditioning) == B else np.zeros(B * S, np.intp)  # [B*S]
        output = np.empty_like(samples)
        for start in range(0, B * S, self.batch_size):
            part = slice(start, start + self.batch_size)
            feeds = {name: array[prompt[part]] for name, array in conditioning.arrays.items()}
            times = np.full(len(prompt[part]), self.schedule.told(timestep), self.told_dtype)
            feeds |= {"sample": samples[part], "timestep": times}
            output[part] = self._run(self._family.denoiser, feeds)["output"]
        return self.schedule.read(x_t, output.reshape(x_t.shape), timestep)

    def decode(self, latent: Array) -> Array:
        """Images float32 [N, 3, h, w], about [-1, 1], of clean latents [N, C, H, W]."""
        return self._in_parts("vae_decoder", "latent", latent, "image")

    def encode_images(self, images: Array) -> Array:
        """Latents [N, C, H, W], the VAE's posterior mean, of images float32 [N, 3, *self.image_size] in [-1, 1]."""
        return self._in_parts("vae_encoder", "image", images, "latent")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the model's images."""
        height, width = self._engine("vae_encoder").inputs["image"].shape[2:]
        assert height is not None
        assert width is not None
        return height, width

    @property
    def image_batch(self) -> int:
        """VAE samples per run: an image takes far more memory than a latent, so no more than by the latent's size."""
        return min(self.batch_size, default_batch_size(self.latent_shape))

    def _in_parts(self, component: str, name: str, array: Array, result: str) -> Array:
        engine, starts = self._engine(component), range(0, len(array), self.image_batch)
        parts = (np.ascontiguousarray(array[start : start + self.image_batch]) for start in starts)
        return np.concatenate([engine.run({name: part})[result] for part in parts])

    def _engine(self, component: str) -> Engine:
        """A component that only some need: opened when first asked for."""
        if component not in self._engines:
            self._engines[component] = self._bundle.engine(component)
        return self._engines[component]

    def _run(self, component: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._engines[component].run(feeds)


def _engine(bundle: Bundle, name: str, network: Network) -> Engine:
    """A component, opened, that takes and gives what its family needs. Raises ModelError."""
    engine = bundle.engine(name)
    for verb, found, needed in (("takes", engine.inputs, network.takes), ("gives", engine.outputs, network.gives)):
        if set(found) != set(needed):
            raise ModelError(
                f"{bundle.folder}: its {name} {verb} {', '.join(found) or 'nothing'}; needed {', '.join(needed)}: "
                "export the model again"
            )
    return engine


def _reading(encodings: Sequence[Encoding]) -> Reading:
    """Of all tokenizers; the spans of the one that reads furthest."""
    spans = [tuple(span for span in e.offsets if span[0] < span[1]) for e in encodings]
    return Reading(tuple(number for e in encodings for number in e.ids), max(spans, key=lambda of: of[-1:]))


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # what the tokenizers library raises has no class of its own
        raise ModelError(f"the bundle's tokenizer cannot be read ({error}): export the model again") from error


def default_batch_size(latent_shape: tuple[int, int, int]) -> int:
    """64 samples for small latents, fewer for large ones (4 for Stable Diffusion's 4 x 64 x 64), to bound memory."""
    return max(1, min(64, 65536 // int(np.prod(latent_shape))))
