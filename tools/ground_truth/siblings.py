"""Models of other families on the ground truth's pictures: does the method hold there?

    python -m tools.ground_truth.siblings stable-diffusion-xl --work build/ground-truth [--seed 1 --size 32]

After `python -m tools.ground_truth` of the same seed and size, whose pictures, VAE and text encoder they share. Half of
the captions (groups of related ones) are shown, so that a training takes an hour or two on one core. A second text
encoder is taught beside the frozen image tower, then frozen, too. Every stage keeps its result; interrupted, the same
command goes on.

- stable-diffusion-xl: a UNet with two text encoders, a pooled embedding and the sizes that SDXL is told, of epsilon; it
  goes on from the plain v-prediction UNet, which has memorized next to nothing.
- stable-diffusion-3: a transformer with joint attention (MMDiT) on a rectified flow, from nothing.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from engines.export import export

from . import dataset, diffusion, labels, stages, towers
from .dataset import Dataset
from .fit import Loss, fit
from .precision import autocast, ready

WIDTH = 192  # of the second text encoder
SECOND_STEPS, SECOND_LR, SECOND_BATCH = 2000, 1e-3, 256
BATCH = 48
SIZES = 6  # numbers that SDXL is told: original size, crop, target size


@dataclass(frozen=True)
class Texts:
    """What the frozen encoders make of every caption, the last row being the empty prompt's.

    `hidden` [p + 1, L, HIDDEN + WIDTH]: the states before the last layers; `pooled`: the projected ends of the first
    and second encoder, [p + 1, HIDDEN] each.
    """

    hidden: torch.Tensor
    pooled: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Shared:
    """What siblings share."""

    work: Path
    shown: Dataset
    parts: stages.Encoded
    first: CLIPTextModelWithProjection
    second: CLIPTextModelWithProjection
    texts: Texts


@dataclass(frozen=True)
class Sibling:
    """`steps`, `lr` of its training; `made(shared)`: the network; `loss(shared, network)`; `saved(shared, network,
    folder)`: its pipeline; `labelled`: one in so many groups of captions that are shown at most once gets labels;
    `sampled`: steps of a picture."""

    steps: int
    lr: float
    made: Callable[[Shared], nn.Module]
    loss: Callable[[Shared, nn.Module], Loss]
    saved: Callable[[Shared, nn.Module, Path], None]
    labelled: int = 1
    sampled: int = labels.STEPS


def half(whole: Dataset) -> Dataset:
    """Every second group of related captions, in focused epochs; captions keep their numbers."""
    focused = whole.focused()
    return replace(focused, rows=focused.rows[whole.group[focused.rows[:, 1]] % 2 == 0])


def new_second(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=towers.HIDDEN,
        num_hidden_layers=4, num_attention_heads=6, max_position_embeddings=towers.MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    encoder = CLIPTextModelWithProjection(config)
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.1)
    return encoder


def second_loss(encoder: CLIPTextModelWithProjection, tokens: torch.Tensor, vectors: torch.Tensor) -> Loss:
    """Captions beside what the image tower makes of their pictures, unit vectors [n, HIDDEN]."""

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(0, len(tokens), (SECOND_BATCH,), generator=generator)
        with autocast():
            texts = encoder(tokens[chosen]).text_embeds
        return towers.contrast(vectors[chosen], F.normalize(texts.float(), dim=1), 1 / towers.TEMPERATURE)

    return loss


@torch.no_grad()
def beside(tower: towers.ImageTower, images: np.ndarray) -> torch.Tensor:
    """The image tower's vectors of pictures uint8, [n, HIDDEN]."""
    parts = [tower(torch.from_numpy(images[i : i + 256]).float() / 127.5 - 1)[0] for i in range(0, len(images), 256)]
    return torch.cat(parts)


def shared(work: Path, found: stages.Data) -> Shared:
    parts = stages.frozen(work, found)
    torch.manual_seed(found.dataset.seed + 100)
    second = new_second(parts.tokenizer)
    images, texts = found.pool
    tokens = towers.tokenize(parts.tokenizer, texts)
    fit(
        "text-2",
        [second],
        second_loss(second, tokens, beside(parts.towers.image, images)),
        SECOND_STEPS,
        SECOND_LR,
        work,
    )
    config = CLIPTextConfig(**parts.towers.text.config.to_dict() | {"projection_dim": towers.HIDDEN})
    first = CLIPTextModelWithProjection(config)
    first.text_model.load_state_dict(parts.towers.text.state_dict(), strict=False)
    first.text_projection.weight.data.copy_(parts.towers.project.weight)
    first.eval().requires_grad_(False)
    prompts = towers.tokenize(parts.tokenizer, [*map(str, found.dataset.prompts), ""])
    return Shared(work, half(found.dataset), parts, first, second, encoded((first, second), prompts))


@torch.no_grad()
def encoded(encoders: tuple[CLIPTextModelWithProjection, ...], tokens: torch.Tensor) -> Texts:
    hidden, pooled = [], []
    for encoder in encoders:
        outputs = [encoder(part, output_hidden_states=True) for part in tokens.split(512)]
        hidden.append(torch.cat([output.hidden_states[-2] for output in outputs]))
        pooled.append(torch.cat([output.text_embeds for output in outputs]))
    return Texts(torch.cat(hidden, -1), (pooled[0], pooled[1]))


def drawn(given: Shared, step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and numbers of captions of one step, some of them none (the last number), and noise."""
    picture, caption = torch.from_numpy(given.shown.batch(step, BATCH)).T.clone()
    caption[torch.rand(BATCH, generator=generator) < diffusion.CAPTION_DROPOUT] = len(given.texts.hidden) - 1
    x0 = given.parts.latents[picture]
    return x0, caption, torch.randn(x0.shape, generator=generator)


def new_xl(given: Shared) -> UNet2DConditionModel:
    """The plain v-prediction UNet's weights wherever they fit."""
    torch.manual_seed(given.shown.seed + 101)
    plain = diffusion.new_unet(given.parts.latents.shape[-1])
    plain.load_state_dict(torch.load(given.work / "v_prediction.pt")["modules"][0])
    sizes = 16
    network = UNet2DConditionModel(
        **{name: value for name, value in plain.config.items() if not name.startswith("_")}
        | {
            "cross_attention_dim": towers.HIDDEN + WIDTH,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": sizes,
            "projection_class_embeddings_input_dim": towers.HIDDEN + SIZES * sizes,
        }
    )
    fits = {name: w for name, w in plain.state_dict().items() if w.shape == network.state_dict()[name].shape}
    network.load_state_dict(fits, strict=False)
    nn.init.zeros_(network.add_embedding.linear_2.weight)  # it begins as the plain one
    nn.init.zeros_(network.add_embedding.linear_2.bias)
    return ready(network.to(memory_format=torch.channels_last))


def xl_loss(given: Shared, network: nn.Module) -> Loss:
    """Of epsilon, weighted as `diffusion.diffusion_loss`; no caption is zeros, as to SDXL's pipeline."""
    abar = diffusion.scheduler("epsilon").alphas_cumprod
    empty = len(given.texts.hidden) - 1
    side = float(given.shown.images.shape[1])
    sizes = torch.tensor([side, side, 0.0, 0.0, side, side]).expand(BATCH, -1)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        x0, caption, noise = drawn(given, step, generator)
        timestep = torch.randint(0, len(abar), (BATCH,), generator=generator)
        a, s = (rate[timestep].sqrt()[:, None, None, None] for rate in (abar, 1 - abar))
        x_t = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        told = (caption != empty)[:, None]
        added = {"text_embeds": given.texts.pooled[1][caption] * told, "time_ids": sizes}
        with autocast():
            hidden = given.texts.hidden[caption] * told[..., None]
            output = network(x_t, timestep, hidden, added_cond_kwargs=added).sample.float()
        weight = (1 / abar[timestep]).clamp(max=20)
        return (weight * (output - noise).square().mean((1, 2, 3))).mean()

    return loss


def save_xl(given: Shared, network: nn.Module, folder: Path) -> None:
    parts = given.parts
    StableDiffusionXLPipeline(
        vae=parts.vae, text_encoder=parts.towers.text, text_encoder_2=given.second, tokenizer=parts.tokenizer,
        tokenizer_2=parts.tokenizer, unet=network, scheduler=diffusion.scheduler("epsilon"),
        force_zeros_for_empty_prompt=True,
    ).save_pretrained(folder)  # fmt: skip


def new_flow(given: Shared) -> SD3Transformer2DModel:
    torch.manual_seed(given.shown.seed + 102)
    return SD3Transformer2DModel(
        sample_size=given.parts.latents.shape[-1], patch_size=2, in_channels=4, num_layers=6, attention_head_dim=48,
        num_attention_heads=4, joint_attention_dim=towers.HIDDEN + WIDTH, caption_projection_dim=192,
        pooled_projection_dim=2 * towers.HIDDEN, out_channels=4, pos_embed_max_size=16,
    )  # fmt: skip


def flow_loss(given: Shared, network: nn.Module) -> Loss:
    """Of noise - x0, at times whose logit is standard normal, as Stable Diffusion 3's; no caption is an empty one."""
    pooled = torch.cat(given.texts.pooled, -1)
    missing = torch.zeros_like(given.texts.hidden[:1]).expand(BATCH, -1, -1)  # where T5's tokens would be

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        x0, caption, noise = drawn(given, step, generator)
        sigma = torch.randn(BATCH, generator=generator).sigmoid()
        x_t = x0 + sigma[:, None, None, None] * (noise - x0)
        with autocast(), sdpa_kernel(SDPBackend.MATH):  # the fused one's backward is slow on a CPU
            hidden = torch.cat([given.texts.hidden[caption], missing], 1)
            output = network(x_t, hidden, pooled[caption], sigma * 1000).sample.float()
        return (output - (noise - x0)).square().mean()

    return loss


def save_flow(given: Shared, network: nn.Module, folder: Path) -> None:
    parts = given.parts
    StableDiffusion3Pipeline(
        vae=parts.vae, text_encoder=given.first, text_encoder_2=given.second, text_encoder_3=None,
        tokenizer=parts.tokenizer, tokenizer_2=parts.tokenizer, tokenizer_3=None, transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    ).save_pretrained(folder)  # fmt: skip


SIBLINGS = {
    "stable-diffusion-xl": Sibling(6000, 8e-4, new_xl, xl_loss, save_xl),
    "stable-diffusion-3": Sibling(7500, 1e-3, new_flow, flow_loss, save_flow, labelled=4, sampled=25),
}


def bundle(given: Shared, name: str) -> Path:
    """Train, save and export."""
    sibling = SIBLINGS[name]
    checkpoint, out = given.work / f"checkpoint-{name}", given.work / f"bundle-{name}"
    network = sibling.made(given)
    fit(name, [network], sibling.loss(given, network), sibling.steps, sibling.lr, given.work)
    if not out.exists():
        sibling.saved(given, network, checkpoint)
        std = float((given.parts.latents - given.parts.latents.mean(0)).square().mean().sqrt())
        export(checkpoint, out, latent_std=round(std, 4), say=print)
    return out


def chosen(given: Shared, labelled: int) -> tuple[Dataset, stages.Encoded]:
    """The captions of the groups that are shown, rarely shown ones of one in `labelled`, and what the first encoder
    makes of these."""
    whole, place = given.shown, np.full(len(given.shown.prompts), -1)
    kept = np.flatnonzero((whole.group % 2 == 0) & ((whole.duplicates > 1) | (whole.group // 2 % labelled == 0)))
    place[kept] = np.arange(len(kept))
    rows = np.stack([whole.rows[:, 0], place[whole.rows[:, 1]]], 1)
    rows = rows[rows[:, 1] >= 0]
    fields = {name: getattr(whole, name)[kept] for name in ("prompts", "roles", "duplicates", "group", "image")}
    parts = replace(given.parts, hidden=given.parts.hidden[kept], pooled=given.parts.pooled[kept])
    return replace(whole, rows=rows, **fields), parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=SIBLINGS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=dataset.SEED)
    parser.add_argument("--size", type=int, choices=(32, 64), default=64, help="pixels of a picture's side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = stages.data(arguments.work, arguments.seed, arguments.size)
    given = shared(arguments.work, found)
    folder = bundle(given, arguments.family)
    sibling = SIBLINGS[arguments.family]
    captions, parts = chosen(given, sibling.labelled)
    generator = stages.Generator("openvino", "auto")
    found = replace(found, dataset=captions)
    labelled = stages.label(arguments.work, found, parts, folder, arguments.family, generator, sibling.sampled)
    print(labelled.select(pl.col("label").sum().alias("memorized"), (~pl.col("label")).sum().alias("not")))


if __name__ == "__main__":
    main()
