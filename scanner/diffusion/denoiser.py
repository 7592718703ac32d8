"""Family, schedule and engines as one function eps(x_t, timestep, conditioning). The only file that runs engines."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines import Bundle, Engine
from scanner.diffusion.families import Conditioning, family, tokenized
from scanner.diffusion.schedule import Array, Schedule
from scanner.errors import ModelError


class Reading(NamedTuple):
    """What a model gets of a prompt. `ids`: equal for two prompts that are one to the model; `spans`: [start, end) in
    characters of each token of the text, in order, up to the tokenizer's length."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class Denoiser:
    """A bundle, opened.

    `batch_size`: UNet samples per run; results do not depend on it beyond float32 rounding. `told_dtype`: of the
    timestep that the network is told.
    """

    def __init__(self, bundle: Bundle, batch_size: int | None = None):
        manifest = bundle.manifest
        self.latent_shape, self.latent_std = manifest.latent_shape, manifest.latent_std
        self.schedule = Schedule.from_manifest(manifest.schedule, manifest.prediction_type, manifest.grids)
        self.batch_size = default_batch_size(self.latent_shape) if batch_size is None else batch_size
        self._bundle = bundle
        self._family = family(manifest.family)
        self._engines = {name: bundle.engine(name) for name in self._family.components}
        self._tokenizer = _tokenizer(bundle.tokenizer)
        self.provider = self._engines["unet"].provider
        self.told_dtype = self._engines["unet"].inputs["timestep"].dtype
        self.rebuilds = self._engines["unet"].rebuilds

    @cached_property
    def null(self) -> Conditioning:
        """The conditioning of the empty prompt, padded like every other."""
        return self.encode([""])

    def resized(self, batch_size: int) -> "Denoiser":
        """Itself, on the same engines, with another batch size."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Tokenise and run the text encoder once."""
        return self._family.encode(self._run, self._tokenizer, prompts)

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        """What the model gets of each prompt, without running an engine."""
        encodings = tokenized(self._tokenizer, prompts)
        return [Reading(tuple(e.ids), tuple(span for span in e.offsets if span[0] < span[1])) for e in encodings]

    def eps(self, x_t: Array, timestep: int, conditioning: Conditioning) -> Array:
        """Predicted noise, float32 [B, S, C, H, W], for latents of that shape.

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
            output[part] = self._run("unet", {"sample": samples[part], "timestep": times, **feeds})["output"]
        return self.schedule.to_eps(x_t, output.reshape(x_t.shape), timestep)

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


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # what the tokenizers library raises has no class of its own
        raise ModelError(f"the bundle's tokenizer cannot be read ({error}): export the model again") from error


def default_batch_size(latent_shape: tuple[int, int, int]) -> int:
    """64 samples for small latents, fewer for large ones (4 for Stable Diffusion's 4 x 64 x 64), to bound memory."""
    return max(1, min(64, 65536 // int(np.prod(latent_shape))))
