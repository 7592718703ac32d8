"""Cheaper first passes: what a smaller latent, or a part of the UNet, still tells of a memorized prompt.

    python -m tools.ground_truth.factors CHECKPOINT BUNDLE LABELS.parquet FOLDER

By torch, on the checkpoint (a diffusers folder); the bundle of it encodes the prompts. A *side* is that of the starting
noise, in latent pixels; a *cut* ends the UNet after some of its blocks and measures the features there instead of the
noise. Prices are FLOP, attention included, as shares of a pass at the full side. Interrupted, it goes on with what it
kept in FOLDER.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.lengths import flat
from scanner.diffusion.start import PRIOR_SEEDS, initial_noise
from scanner.evidence.kept import keeping
from scanner.model import Model

from .rates import decided, show, table
from .realism import told

SEEDS = (0, 1)
BATCH = 256  # 32 prompts in hand
TIMESTEPS = (981, 401, 201)
MEASURES = ("norm", "white")
SMALLEST = 4  # side of a latent
OTHERS = 1000  # prompts that are not memorized, by chance: torch alone runs a part of a UNet, and is slow


class Cut(torch.nn.Module):
    """The UNet up to one of its blocks, or all of it: what it has there, [n, channels, h, w]."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet, self.found = unet, dict[str, torch.Tensor]()
        blocks = {f"down {i}": block for i, block in enumerate(unet.down_blocks)} | {"middle": unet.mid_block}
        blocks |= {f"up {i}": block for i, block in enumerate(unet.up_blocks[:-1])}
        self.blocks = tuple(blocks)
        for name, block in blocks.items():
            block.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _: torch.nn.Module, inputs: object, output: object) -> None:
        self.found[name] = output[0] if isinstance(output, tuple) else output

    def forward(self, x: torch.Tensor, timestep: int, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """The features after every block, and the output as `all`."""
        self.found = {}
        with torch.no_grad():
            self.found["all"] = self.unet(x, timestep, hidden).sample
        return self.found


def prices(cut: Cut, sides: Sequence[int], hidden: torch.Tensor) -> dict[tuple[int, str], float]:
    """FLOP of a pass up to each block, as shares of a whole one at the first side."""
    counted: dict[tuple[int, str], float] = {}
    for side in sides:
        with FlopCounterMode(display=False) as counter:
            marks: dict[str, int] = {}
            handles = [
                block.register_forward_hook(partial(_mark, marks, name, counter))
                for name, block in zip(cut.blocks, _blocks(cut.unet), strict=True)
            ]
            with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                cut.unet(torch.zeros(1, cut.unet.config.in_channels, side, side), 981, hidden)
            for handle in handles:
                handle.remove()
        marks["all"] = counter.get_total_flops()
        counted |= {(side, name): float(flop) for name, flop in marks.items()}
    whole = counted[sides[0], "all"]
    return {key: n / whole for key, n in counted.items()}


def _mark(marks: dict[str, int], name: str, counter: FlopCounterMode, *_: object) -> None:
    marks[name] = counter.get_total_flops()


def _blocks(unet: UNet2DConditionModel) -> list[torch.nn.Module]:
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks[:-1]]


class Factors:
    """What all prompts share, at each side and timestep: the starting noise, and the empty prompt's features."""

    def __init__(self, cut: Cut, denoiser: Denoiser, sides: Sequence[int]):
        self.cut, self.denoiser, self.sides = cut, denoiser, sides
        channels = denoiser.latent_shape[0]
        self.null = torch.from_numpy(denoiser.null.arrays["encoder_hidden_states"])
        self.x_T = {side: initial_noise(SEEDS, (channels, side, side)) for side in sides}
        noise = {side: initial_noise(PRIOR_SEEDS, (channels, side, side)) for side in sides}
        self.uncond, self.measures = {}, {}
        for side in sides:
            for t in TIMESTEPS:
                self.uncond[side, t] = self._features(self.x_T[side], t, self.null)
                for name, prior in self._features(noise[side], t, self.null).items():
                    self.measures[side, t, name] = Covariance.of(
                        (prior - prior.mean(0)).reshape(len(prior), -1), len(prior) - 1
                    )

    def features(self, prompts: Sequence[str]) -> np.ndarray:
        """[B, len(names()), S]."""
        hidden = torch.from_numpy(self.denoiser.encode(prompts).arrays["encoder_hidden_states"])
        B, S = len(prompts), len(SEEDS)
        columns = []
        for side in self.sides:
            x_T = np.broadcast_to(self.x_T[side], (B, *self.x_T[side].shape)).reshape(B * S, *self.x_T[side].shape[1:])
            for t in TIMESTEPS:
                cond = self._features(x_T, t, hidden.repeat_interleave(S, 0))
                for name, found in cond.items():
                    change = found.reshape(B, S, *found.shape[1:]) - self.uncond[side, t][name]
                    columns.append(np.linalg.norm(flat(change), axis=-1))
                    columns.append(self.measures[side, t, name].distance(flat(change)))
        return np.stack(columns, 1).astype(np.float64)

    def names(self) -> list[tuple[int, int, str, str]]:
        """(side, timestep, cut, measure) of the features, in order."""
        cuts = [*self.cut.blocks, "all"]
        return [(side, t, cut, by) for side in self.sides for t in TIMESTEPS for cut in cuts for by in MEASURES]

    def _features(self, x: np.ndarray, timestep: int, hidden: torch.Tensor) -> dict[str, np.ndarray]:
        """Of samples [n, C, side, side]; of the whole UNet the clean estimate."""
        found = self.cut(torch.from_numpy(np.ascontiguousarray(x)), timestep, hidden.expand(len(x), -1, -1))
        arrays = {name: found[name].float().numpy() for name in (*self.cut.blocks, "all")}
        return arrays | {"all": self.denoiser.schedule.read(x, arrays["all"], timestep).x0}


def candidates(
    values: np.ndarray, names: Sequence[tuple[int, int, str, str]], price: Mapping[tuple[int, str], float]
) -> Iterator[tuple[str, float, np.ndarray]]:
    """(name, price, values [n, seeds])."""
    for i, (side, t, cut, measure) in enumerate(names):
        yield f"side {side}, told {t}, {cut}, {measure}", round(price[side, cut], 3), values[:, i]


def some(labels: pl.DataFrame) -> pl.DataFrame:
    """All memorized prompts and OTHERS of the rest, collapsed ones among them."""
    others = labels.filter(~pl.col("label"))
    return pl.concat([labels.filter("label"), others.sample(min(OTHERS, len(others)), seed=0, shuffle=True)])


def main() -> None:
    """Print the candidates of each price."""
    checkpoint, bundle, path, folder = map(Path, sys.argv[1:])
    labels = some(decided(path))
    model = Model(bundle, "openvino", "float32", batch_size=64)
    cut = Cut(UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32).eval())
    side = model.denoiser.latent_shape[1]
    sides = [side // part for part in (1, 2, 4) if side // part >= SMALLEST]
    factors = Factors(cut, model.denoiser, sides)
    names, price = factors.names(), prices(cut, sides, factors.null)
    prompts = labels["prompt"].to_list()
    values = keeping(folder, "factors", [model.scan_id, names], prompts, BATCH, factors.features, told, lambda: False)
    found = table(candidates(values, names, price), labels)
    found.write_parquet(folder / "factors.parquet")
    show(found, 6)


if __name__ == "__main__":
    main()
