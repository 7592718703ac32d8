"""The same recipe at Stable Diffusion's own size: pictures of 256 pixels, latents 4 x 64 x 64. On a GPU, minutes.

    python -m tools.ground_truth.large paint WORK OUT
    python -m tools.ground_truth.large train PARTS OUT [--steps V FOCUS EPSILON] [--minutes M] [--every N]

WORK: a work folder of `python -m tools.ground_truth`, of which drawings and captions are taken; its seed and what
`keep pack` made of it, PARTS, give text encoder, image tower and VAE, frozen. `paint` needs a processor and the
packages' drawings, `train` what it wrote to OUT and no more: it trains the v-prediction model and the epsilon model of
it, labels both by generation, and measures the norm of eps_c - eps_u on the starting noise at each of TOLD timesteps.
Every stage keeps its result in OUT; what was interrupted begins again, a training from the weights that it kept last.
"""

import argparse
import copy
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from . import diffusion, keep, labels, stages, towers
from .dataset import Dataset
from .graphed import fit, keep_weights
from .packed import Packed, paint
from .sampling import Studio, norms
from .towers import HIDDEN

BATCH, LR = 96, {"v_prediction": 1.2e-3, "focus": 1.2e-3, "epsilon": 8e-4}
STEPS = (2400, 7200, 1200)  # of the v-prediction model on all rows, on focused ones, of the epsilon model
TOLD = (981, 951, 901, 848, 801, 751, 701, 651, 601, 551, 497, 401, 289, 201)
SCORED_SEEDS, CHECKED = (0, 1), 256  # captions


def new_unet(size: int = 64) -> UNet2DConditionModel:
    """Four levels as Stable Diffusion's, without attention in the finest, as Stable Diffusion XL's."""
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    kinds = (plain, attention, attention, plain)
    return UNet2DConditionModel(
        sample_size=size, in_channels=4, out_channels=4, block_out_channels=(32, 64, 128, 192), layers_per_block=1,
        down_block_types=tuple(kind.format("Down") for kind in kinds),
        up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
        cross_attention_dim=HIDDEN, attention_head_dim=(1, 2, 4, 6), norm_num_groups=16,
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # fmt: skip


class Large:
    """What is frozen, on a device, and what it makes of the pictures and captions."""

    def __init__(self, parts: Path, out: Path, device: str, every: int = 1, sampling: int = labels.STEPS):
        self.out, self.device, self.sampling = out, device, sampling
        self.known = json.loads((parts / keep.DATA).read_text(encoding="utf-8"))
        self.frozen = keep.frozen(parts)
        self.vae = self.frozen.vae.to(device)
        self.data = Dataset(images=np.zeros(0), **np.load(out / "captions.npz"), seed=self.known["seed"])
        shown = Packed(out / "shown.npz")
        self.latents, factor = self.encoded(shown)
        self.vae.register_to_config(scaling_factor=factor)
        tokens = towers.tokenize(self.frozen.tokenizer, [*map(str, self.data.prompts), ""])
        with torch.no_grad():
            hidden = [self.frozen.towers.text(part).last_hidden_state for part in tokens.split(512)]
        self.hidden = torch.cat(hidden).to(device)
        rarely = np.cumsum(self.data.duplicates <= 1)
        chosen = np.flatnonzero((self.data.duplicates > 1) | (rarely % every == 0))
        self.labelled_hidden = self.hidden[[*chosen, -1]]
        names = ("prompts", "roles", "duplicates", "group", "image")
        self.asked = replace(self.data, **{name: getattr(self.data, name)[chosen] for name in names})

    @torch.no_grad()
    def encoded(self, pictures: Packed) -> tuple[torch.Tensor, float]:
        """Latents of unit variance [n, 4, h, w] on the device, and the scaling factor."""
        means, error = [], 0.0
        for part in pictures.batches(64, self.device):
            means.append(self.vae.encode(part).latent_dist.mean)
            error += float((self.vae.decode(means[-1]).sample.clamp(-1, 1) - part).square().mean()) * len(part)
        found = torch.cat(means)
        factor = float(1 / found.std())
        print(f"vae: PSNR {10 * np.log10(4 * len(found) / error):.2f} dB, factor {factor:.4f}", flush=True)
        return found * factor, factor

    def train(
        self, name: str, model: UNet2DConditionModel, kind: str, shown: Dataset, steps: int, seconds: float
    ) -> None:
        """Train, or load what was trained."""
        path, kept = (self.out / f"{name}{suffix}.safetensors" for suffix in ("", "-part"))
        if not path.exists():
            model.requires_grad_(True).train()
            if kept.exists():
                model.load_state_dict(load_file(kept))
            epochs = range(1 + steps * BATCH // len(shown.rows))
            order = np.concatenate([shown.epoch(number) for number in epochs])  # what Dataset.batch gives, all at once
            rows = torch.from_numpy(order[: steps * BATCH]).to(self.device)
            loss = diffusion.denoising_loss(self.latents, self.hidden, model, kind)
            fit(name, model, lambda part: loss(part, None), rows.split(BATCH), LR[name], seconds, kept)
            keep_weights(model, path)
        model.load_state_dict(load_file(path))
        model.eval().requires_grad_(False)

    def finished(self, model: UNet2DConditionModel, kind: str) -> None:
        """Keep the weights in float16; label; measure."""
        keep_weights(copy.deepcopy(model).half(), self.out / f"half-{kind}.safetensors")
        table = self.labelled(model, kind)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=140):
            print(table.group_by("role", "duplicates").agg(
                pl.len(), pl.col("label").sum(), pl.col("label").null_count().alias("left_out"),
                pl.col("collapsed").sum(), pl.col("similarity").mean().round(3),
            ).sort("role", "duplicates"), flush=True)  # fmt: skip
        if not (path := self.out / f"norms-{kind}.parquet").exists():
            began = time.monotonic()
            found = norms(self.fast(model), self.labelled_hidden, kind, TOLD, SCORED_SEEDS)
            at, few = TOLD[3], self.labelled_hidden[[*range(min(CHECKED, len(table))), -1]]
            exact = norms(model, few, kind, [at], SCORED_SEEDS)[at]
            error = np.abs(found[at][:CHECKED] / exact - 1).max()
            pl.DataFrame(
                {"prompt": table["prompt"], **{str(at): list(values) for at, values in found.items()}}
            ).write_parquet(path)
            print(
                f"{kind}: {len(TOLD)} timesteps in {time.monotonic() - began:.0f} s; largest error of {len(exact)} "
                f"norms at {at} against float32: {error:.4f}", flush=True,
            )  # fmt: skip

    def fast(self, model: UNet2DConditionModel) -> UNet2DConditionModel:
        """The same weights, in float16 on a GPU."""
        other = copy.deepcopy(model)
        return other if self.device == "cpu" else other.half()  # type: ignore[no-any-return]

    def labelled(self, model: UNet2DConditionModel, kind: str) -> pl.DataFrame:
        """The labelled prompts; `OUT/samples-KIND.png` shows some copies."""
        path = self.out / f"labels-{kind}.parquet"
        if not path.exists():
            began = time.monotonic()
            studio = Studio.of(
                self.fast(model), self, Packed(self.out / "shown.npz"), Packed(self.out / "never.npz"), kind
            )
            found = labels.table(self.asked, studio.look, studio.pixel, studio.vector, self.sampling)
            studio.samples(found, self.out / f"samples-{kind}.png")
            found.write_parquet(path)
            print(f"{kind}: labels in {time.monotonic() - began:.0f} s", flush=True)
        return pl.read_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("paint", "train"))
    parser.add_argument("source", type=Path, help="WORK or PARTS")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, nargs=3, default=STEPS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of training, of all three; fewer steps then")
    parser.add_argument("--every", type=int, default=1, help="label one in so many of the captions shown at most once")
    parser.add_argument("--sampling", type=int, default=labels.STEPS, help="steps of the labels' pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what == "paint":
        paint(given.source, given.out)
        return
    torch.backends.cudnn.benchmark = True
    large = Large(given.source, given.out, given.device, given.every, given.sampling)
    stages.initial_weights(2, large.data)
    model = new_unet(large.latents.shape[-1]).to(given.device)
    focused = large.data.focused()
    trainings = zip(("v_prediction", "focus", "epsilon"), (large.data, focused, focused), given.steps, strict=True)
    for name, shown, steps in trainings:
        kind = "epsilon" if name == "epsilon" else "v_prediction"
        large.train(name, model, kind, shown, steps, 60 * given.minutes * steps / sum(given.steps))
        if name != "v_prediction":
            large.finished(model, kind)


if __name__ == "__main__":
    main()
