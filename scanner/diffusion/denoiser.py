"""Family, schedule and engines as one function eps(x_t, timestep, conditioning). The only file that runs engines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines import Bundle
from scanner.diffusion.families import Conditioning, family
from scanner.diffusion.schedule import Array, Schedule
from scanner.errors import ModelError


class Denoiser:
    """A bundle, opened.

    `batch_size`: UNet samples per run; results do not depend on it beyond float32 rounding.
    `null`: the conditioning of the empty prompt, padded like every other.
    """

    def __init__(self, bundle: Bundle, batch_size: int | None = None):
        manifest = bundle.manifest
        self.latent_shape, self.latent_std = manifest.latent_shape, manifest.latent_std
        self.schedule = Schedule.from_manifest(manifest.schedule, manifest.prediction_type)
        self.batch_size = default_batch_size(self.latent_shape) if batch_size is None else batch_size
        self._bundle = bundle
        self._family = family(manifest.family)
        self._engines = {name: bundle.engine(name) for name in self._family.components}
        self._tokenizer = _tokenizer(bundle.tokenizer)
        self.provider = self._engines["unet"].provider
        self.null = self.encode([""])

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Tokenise and run the text encoder once."""
        return self._family.encode(self._run, self._tokenizer, prompts)

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
            times = np.full(len(prompt[part]), timestep, np.int64)
            output[part] = self._run("unet", {"sample": samples[part], "timestep": times, **feeds})["output"]
        return self.schedule.to_eps(x_t, output.reshape(x_t.shape), timestep)

    def decode(self, latent: Array) -> Array:
        """Images float32 [N, 3, h, w], about [-1, 1], of clean latents [N, C, H, W]."""
        engine = self._engines.setdefault("vae_decoder", self._bundle.engine("vae_decoder"))
        parts = (latent[start : start + self.batch_size] for start in range(0, len(latent), self.batch_size))
        return np.concatenate([engine.run({"latent": np.ascontiguousarray(part)})["image"] for part in parts])

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
