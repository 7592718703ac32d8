"""Guided sampling and the likeness of its pictures, without leaving the GPU: what labels.py does through an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image

from scanner import initial_noise

from . import diffusion, labels
from .packed import Packed
from .similarity import copy_threshold, measured
from .towers import ImageTower

if TYPE_CHECKING:
    from .large import Large

AT_ONCE = 64  # prompts
COMPARED = 64  # pixels of a picture whose pixels are compared


def predicted(model: UNet2DConditionModel, x: torch.Tensor, told: int, hidden: torch.Tensor) -> torch.Tensor:
    """The network's output, float32."""
    dtype = model.conv_in.weight.dtype
    return model(x.to(dtype), told, hidden.to(dtype)).sample.float()  # type: ignore[no-any-return]


@torch.inference_mode()
def sampled(
    model: UNet2DConditionModel, hidden: torch.Tensor, null: torch.Tensor, seeds: Sequence[int], steps: int, kind: str
) -> torch.Tensor:
    """Latents [B, S, 4, h, w] by guided DDIM sampling; `hidden` [B, L, d], `null` [L, d]."""
    side, B = model.config.sample_size, len(hidden)
    noise = torch.from_numpy(initial_noise(seeds, (4, side, side))).to(hidden.device)
    x = noise.repeat(B, 1, 1, 1).to(memory_format=torch.channels_last)
    told = torch.cat([null.expand(len(x), -1, -1), hidden.repeat_interleave(len(seeds), 0)])
    schedule = diffusion.scheduler(kind)
    schedule.set_timesteps(steps)
    for timestep in schedule.timesteps.tolist():
        uncond, cond = predicted(model, torch.cat([x, x]), timestep, told).chunk(2)
        x = schedule.step(uncond + labels.GUIDANCE_SCALE * (cond - uncond), timestep, x).prev_sample
    return x.unflatten(0, (B, len(seeds)))


@torch.inference_mode()
def norms(
    model: UNet2DConditionModel, hidden: torch.Tensor, kind: str, told: Sequence[int], seeds: Sequence[int]
) -> dict[int, np.ndarray]:
    """||eps_c - eps_u|| on the starting noise, float32 [n, S], by the timestep that the network is told.

    `hidden` [n + 1, L, d], the last row the empty prompt's. Of a v model eps = sqrt(abar) v + sqrt(1 - abar) x.
    """
    side = model.config.sample_size
    noise = torch.from_numpy(initial_noise(seeds, (4, side, side))).to(hidden.device)
    abar, S, found = diffusion.scheduler(kind).alphas_cumprod, len(seeds), {}
    for timestep in told:
        uncond = predicted(model, noise, timestep, hidden[-1].expand(S, -1, -1))
        rate = 1.0 if kind == "epsilon" else float(abar[timestep].sqrt())
        parts = []
        for part in hidden[:-1].split(256):
            cond = predicted(model, noise.repeat(len(part), 1, 1, 1), timestep, part.repeat_interleave(S, 0))
            change = cond.unflatten(0, (len(part), S)) - uncond
            parts.append(rate * change.flatten(2).norm(dim=2))
        found[timestep] = torch.cat(parts).cpu().numpy()
    return found


def unit(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [n, 3, h, w] in [-1, 1] as vectors whose dot product is the correlation of their pixels."""
    flat = (pictures - pictures.mean((2, 3), keepdim=True)).flatten(1)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6)


@dataclass
class Studio:
    """A model that paints, and what its pictures are compared with.

    `training`, `copies`: unit vectors of the pictures that it was shown, of pixels and of the image tower's copy head;
    `pixel`, `vector`: the similarities above which a picture is a copy.
    """

    model: UNet2DConditionModel
    vae: AutoencoderKL
    tower: ImageTower
    hidden: torch.Tensor
    kind: str
    tower_size: int
    shown: Packed
    training: torch.Tensor
    copies: torch.Tensor
    pixel: float
    vector: float

    @classmethod
    def of(cls, model: UNet2DConditionModel, large: "Large", shown: Packed, never: Packed, kind: str) -> "Studio":
        device = large.device
        tower = large.frozen.towers.image.to(device)
        empty = torch.zeros(0, device=device)
        studio = cls(
            model, large.vae, tower, large.labelled_hidden, kind, large.known["size"], shown, empty, empty, 0.0, 0.0
        )
        training, other = (studio.seen(pictures) for pictures in (shown, never))
        studio.training, studio.copies = training
        studio.pixel, studio.vector = (
            copy_threshold(new.cpu().numpy(), old.cpu().numpy()) for new, old in zip(other, training, strict=True)
        )
        return studio

    @torch.inference_mode()
    def seen(self, pictures: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Both kinds of vectors of real pictures as the VAE reconstructs them."""
        device = str(self.hidden.device)
        found = [
            self.vectors(self.vae.decode(self.vae.encode(part).latent_dist.mean).sample)
            for part in pictures.batches(64, device)
        ]
        pixels, copies = zip(*found, strict=True)
        return torch.cat(pixels), torch.cat(copies)

    def vectors(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of pictures [n, 3, h, w]: of pixels, and of the copy head."""
        small = F.adaptive_avg_pool2d(pictures.float().clamp(-1, 1), COMPARED)
        return unit(small), self.tower(F.adaptive_avg_pool2d(small, self.tower_size))[1]

    @torch.inference_mode()
    def pictures(self, prompts: Sequence[int], seeds: Sequence[int], steps: int) -> torch.Tensor:
        """Pictures [B, S, 3, h, w] in [-1, 1]."""
        latents = sampled(self.model, self.hidden[list(prompts)], self.hidden[-1], seeds, steps, self.kind).flatten(
            0, 1
        )
        parts = [self.vae.decode(part / self.vae.config.scaling_factor).sample for part in latents.split(64)]
        return torch.cat(parts).unflatten(0, (len(prompts), len(seeds)))

    @torch.inference_mode()
    def look(self, prompts: Sequence[int], seeds: Sequence[int], steps: int, what: str) -> dict[int, dict[str, dict]]:
        """Both similarities of each prompt's pictures, as `labels.measure` has them."""
        found = {}
        for i in range(0, len(prompts), AT_ONCE):
            part = [int(prompt) for prompt in prompts[i : i + AT_ONCE]]
            images = self.pictures(part, seeds, steps)
            both = []
            for vectors, known, threshold in zip(
                self.vectors(images.flatten(0, 1)), (self.training, self.copies), (self.pixel, self.vector), strict=True
            ):
                of_prompt = vectors.unflatten(0, (len(part), len(seeds)))
                near = (of_prompt @ known.T).cpu().numpy()
                between = (of_prompt @ of_prompt.transpose(1, 2)).cpu().numpy()
                both.append([measured(n, b, threshold) for n, b in zip(near, between, strict=True)])
            found |= {p: {"pixel": a, "tower": b} for p, a, b in zip(part, *both, strict=True)}
            if i // AT_ONCE % 10 == 0:
                print(f"{what}: {i + len(part)}/{len(prompts)} prompts", flush=True)
        return found

    def samples(self, table: pl.DataFrame, path: Path, n: int = 10) -> None:
        """Memorized captions' pictures of all seeds, beside the training picture; one caption a row."""
        chosen = table.with_row_index("at").filter("label")[: 8 * n : 8]
        if not len(chosen):
            return
        images = self.pictures(chosen["at"].to_list(), labels.SEEDS, labels.STEPS)
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        rows = [
            np.concatenate([self.shown.picture(image), *made], 2)
            for image, made in zip(chosen["image"].to_list(), pixels, strict=True)
        ]
        Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0)).resize((128 * 5, 128 * len(rows))).save(path)
