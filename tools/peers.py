"""What the field's scripts do at the first step, to be compared with."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from scanner import initial_noise

SEEDS = (0, 1)


class Peers:
    """||eps_c - eps_u|| at the first step as research scripts compute it: both branches, every prompt."""

    def __init__(
        self, checkpoint: Path, seeds: Sequence[int] = SEEDS, device: str = "cpu", dtype: torch.dtype = torch.float32
    ):
        self.pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, torch_dtype=dtype).to(device)
        self.pipeline.scheduler.set_timesteps(50)
        config = self.pipeline.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        self.noise = torch.from_numpy(initial_noise(seeds, shape)).to(device, dtype)

    @torch.inference_mode()
    def __call__(self, prompts: list[str], batch: int) -> float:
        """Prompts per second."""
        timestep, started = self.pipeline.scheduler.timesteps[0], time.perf_counter()
        for i in range(0, len(prompts), batch):
            part = prompts[i : i + batch]
            hidden = torch.cat([self._embed([""] * len(part)), self._embed(part)])
            noise = self.noise.repeat(2 * len(part), 1, 1, 1)
            eps_uncond, eps_cond = self.pipeline.unet(noise, timestep, hidden).sample.chunk(2)
            (eps_cond - eps_uncond).flatten(1).norm(dim=1).reshape(len(part), -1).mean(1).tolist()
        return len(prompts) / (time.perf_counter() - started)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        ids = self.pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.pipeline.text_encoder(ids.to(self.noise.device)).last_hidden_state.repeat_interleave(
            len(self.noise), 0
        )
