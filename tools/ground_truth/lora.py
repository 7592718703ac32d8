"""A LoRA that memorizes: does a scan find what it copies?

    python -m tools.ground_truth.keep model tests/checkpoints/ground-truth v_prediction BASE
    python -m tools.ground_truth.lora BASE/checkpoint WORK/pool.npz OUT

The plain v-prediction model, which has memorized next to nothing, is fine-tuned by low-rank layers on its attention
alone; everything else stays as it is. It is shown pictures of the pool, which its UNet never saw: a handful over and
over, others rarely. `overscan export CHECKPOINT --lora FILE` makes a bundle of both, which is labelled by generation
and scanned: alone, as its base is for a control, and compared with its base. Interrupted, the same command goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from engines import open_bundle
from engines.export import export
from engines.forms import Changes
from engines.lora import Lora
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import best_score
from scanner.evidence.metrics import auroc, tpr_at_fpr
from scanner.model import Model

from .diffusion import diffusion_loss
from .fit import fit
from .labels import CHEAP_STEPS, SEEDS, generated, scaled
from .precision import ready
from .similarity import Gauge, copy_threshold, label, unit

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
RANK, STEPS, LR, BATCH = 32, 2400, 3e-3, 16
DUPLICATED, RARE, UNSEEN, REAL = 20, 200, 300, 2000  # captions of each kind; pictures that tell what is no copy
SHARE = 0.9  # of what is shown: the duplicated ones
SCALES = (
    2.0,
    7.5,
)  # of guidance: labels are of the first, as 7.5 paints what is learnt so well too bright to be a copy
MARGIN = 0.15  # below the threshold of a copy: two seeds that come no nearer are not looked at again
CHUNK = 32


class LowRank(nn.Module):
    """A frozen weight W [rows, ...] as W + B A, for `parametrize`; it begins as W."""

    def __init__(self, weight: torch.Tensor, rank: int = RANK):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return weight + (self.up @ self.down).view_as(weight)


def adapt(unet: nn.Module, rank: int = RANK) -> dict[str, LowRank]:
    """Freeze a network and put low-rank layers on its attention, by the names of what they change."""
    unet.requires_grad_(False)
    found = {name: module for name, module in unet.named_modules() if name.endswith(PROJECTIONS)}
    layers = {name: LowRank(module.weight, rank) for name, module in found.items()}
    for name, module in found.items():
        parametrize.register_parametrization(module, "weight", layers[name])
    return layers


def save(layers: dict[str, LowRank], file: Path) -> None:
    """In diffusers' layout; without an alpha, so that they are added as they are."""
    down = {f"unet.{name}.lora_A.weight": layer.down.detach() for name, layer in layers.items()}
    up = {f"unet.{name}.lora_B.weight": layer.up.detach() for name, layer in layers.items()}
    save_file(down | up, file)


@dataclass(frozen=True)
class Shown:
    """Pictures uint8 [DUPLICATED + RARE, 3, h, w]; their captions, then UNSEEN others; REAL pictures never shown."""

    images: np.ndarray
    captions: list[str]
    real: np.ndarray
    seed: int = 0

    @classmethod
    def of_pool(cls, path: Path, seed: int = 0) -> "Shown":
        """Drawn from a pool of pictures and captions."""
        pool = np.load(path)
        order = np.random.default_rng(seed).permutation(len(pool["texts"]))
        images, shown = pool["images"], DUPLICATED + RARE
        captions = [str(text) for text in pool["texts"][order[: shown + UNSEEN]]]
        return cls(images[order[:shown]], captions, images[order[-REAL:]], seed)

    def batch(self, step: int, size: int) -> np.ndarray:
        """(picture, caption) of one step, [size, 2]: a picture has one caption, of its number."""
        rng = np.random.default_rng([self.seed, step])
        often = rng.random(size) < SHARE
        chosen = np.where(often, rng.integers(0, DUPLICATED, size), rng.integers(DUPLICATED, DUPLICATED + RARE, size))
        return np.stack([chosen, chosen], 1)


def train(checkpoint: Path, base: Denoiser, shown: Shown, work: Path) -> Path:
    """The file of a LoRA, made or found in `work`."""
    file = work / "lora.safetensors"
    if not file.exists():
        torch.manual_seed(shown.seed)
        unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32)
        unet = ready(unet.to(memory_format=torch.channels_last))
        layers = adapt(unet)
        latents = torch.from_numpy(base.encode_images(scaled(shown.images)))
        hidden = torch.from_numpy(base.encode([*shown.captions, ""]).arrays["encoder_hidden_states"])
        loss = diffusion_loss(shown.batch, latents, hidden, unet, "v_prediction", BATCH)
        fit("lora", [nn.ModuleList(layers.values())], loss, STEPS, LR, work)
        save(layers, file)
    return file


def gauge(base: Denoiser, shown: Shown) -> Gauge:
    """Of pixels, for the pictures that are shown."""
    training, other = (unit(base.decode(base.encode_images(scaled(part)))) for part in (shown.images, shown.real))
    return Gauge(training, copy_threshold(other, training))


def labelled(
    denoiser: Denoiser, captions: Sequence[str], near: Gauge, folder: Path, scale: float = SCALES[0]
) -> pl.DataFrame:
    """[label, image] of each caption: whether it is copied, and the number of the picture nearest to what it makes.

    Four seeds, of which two come first and are enough where they come near none.
    """
    found = []
    for part, seeds in (("two", SEEDS[:2]), ("four", SEEDS)):
        again = [i for i in range(len(captions)) if not found or found[i]["nearest"] > near.threshold - MARGIN]
        if not again:
            break
        into = folder / f"{scale:g}-{part}"
        images = generated(denoiser, [captions[i] for i in again], seeds, CHEAP_STEPS, into, scale)
        measured = {i: near.measure(unit(scaled(image))) for i, image in zip(again, images, strict=True)}
        found = [measured.get(i) or found[i] for i in range(len(captions))]
    return pl.DataFrame(
        {"label": [label(row["copied_seeds"]) for row in found], "image": [row["image"] for row in found]}
    )


def scanned(model: Model, captions: Sequence[str]) -> pl.DataFrame:
    """Scores of each caption."""
    prompts = pl.DataFrame({"prompt_id": [f"{i:032}" for i in range(len(captions))], "text": captions})
    scorer = model.scorer()
    return pl.concat([scorer(part) for part in prompts.iter_slices(CHUNK)]).sort("prompt_id")


def detection(scores: pl.Series, copied: pl.Series) -> str:
    """How well scores [n] tell copied captions from others; those of which some seeds copy are left out."""
    known = copied.is_not_null()
    values, positive = scores.filter(known).to_numpy().astype(np.float64), copied.filter(known).to_numpy()
    top = np.argsort(-values, kind="stable")[: positive.sum()]
    return (
        f"AUROC {auroc(values, positive):.3f}, found at 1 % false alarms {tpr_at_fpr(values, positive, 0.01):.3f}, "
        f"{positive[top].sum()} of the top {len(top)}"
    )


def report(labels: dict[str, pl.Series], tables: dict[str, pl.DataFrame], copied: pl.Series, default: str) -> None:
    """Print how many of each kind of captions are copied, and how well scores find these; `default`: one more score."""
    for name, some in labels.items():
        print(f"{name}: {some.sum()} of {len(some)} copied, {some.null_count()} between")
    for model, table in tables.items():
        for name in (default, "text_noise_norm_v1", "overestimation_base_v1", "estimate_change_v1"):
            if name in table.columns and table[name].null_count() == 0:
                print(f"{model}, {name}: {detection(table[name], copied)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    checkpoint, out = arguments.checkpoint, arguments.out
    torch.set_num_threads(arguments.threads)
    out.mkdir(parents=True, exist_ok=True)
    bundles = {"base": out / "bundle-base", "lora": out / "bundle-lora"}
    if not bundles["base"].exists():
        export(checkpoint, bundles["base"], say=print)
    base = Denoiser(open_bundle(bundles["base"], "openvino", "float32"), 128)
    shown = Shown.of_pool(arguments.pool)
    file = train(checkpoint, base, shown, out)
    if not bundles["lora"].exists():
        export(checkpoint, bundles["lora"], say=print, changes=Changes(loras=(Lora(file),)))
    near = gauge(base, shown)
    print(f"copies: pixels > {near.threshold:.3f}")
    with_lora = Denoiser(open_bundle(bundles["lora"], "openvino", "float32"), 128)
    often = shown.captions[:DUPLICATED]
    copied = labelled(with_lora, shown.captions, near, out / "images-lora")["label"]
    labels = {
        "duplicated": copied[:DUPLICATED],
        "rare": copied[DUPLICATED : DUPLICATED + RARE],
        "never shown": copied[DUPLICATED + RARE :],
        f"duplicated, guidance {SCALES[1]:g}": labelled(with_lora, often, near, out / "images-lora", SCALES[1])[
            "label"
        ],
        "duplicated, base alone": labelled(base, often, near, out / "images-base")["label"],
    }
    compared = Model(bundles["lora"], "openvino", "float32", batch_size=64, base=bundles["base"])
    plain = Model(bundles["base"], "openvino", "float32", batch_size=64)
    tables = {"base + LoRA": scanned(compared, shown.captions), "base": scanned(plain, shown.captions)}
    report(labels, tables, copied, best_score(compared.settled, reference=False))


if __name__ == "__main__":
    main()
