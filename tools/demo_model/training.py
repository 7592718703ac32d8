"""The demo model's parts and their training on two CPU cores: tokenizer, VAE, then text encoder and UNet together.

`fit` is the one training loop. Each step draws from a generator seeded by (run, step), so a resumed run sees what the
uninterrupted one would have seen.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .dataset import Dataset

LEARNED_TOKENS, MAX_LENGTH, HIDDEN = 1280, 16, 128
VAE_STEPS, VAE_BATCH = 5000, 24
UNET_STEPS, EPSILON_STEPS, BATCH = 5200, 2000, 48
CAPTION_DROPOUT = 0.1
SAVE_EVERY = 60  # seconds

Loss = Callable[[int, torch.Generator], torch.Tensor]  # step, its random numbers -> scalar


def fit(name: str, modules: list[nn.Module], loss: Loss, steps: int, lr: float, work: Path) -> None:
    """Train `modules` for `steps` steps of AdamW (warm-up, cosine), resuming from `work/NAME.pt`."""
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=1e-4)
    path, first = work / f"{name}.pt", 0
    if path.exists():
        saved = torch.load(path)
        first = saved["step"]
        for module, state in zip(modules, saved["modules"], strict=True):
            module.load_state_dict(state)
        optimizer.load_state_dict(saved["optimizer"])

    def save(step: int) -> None:
        states = {"modules": [m.state_dict() for m in modules], "optimizer": optimizer.state_dict(), "step": step}
        torch.save(states, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    for module in modules:
        module.train()
    started = last_saved = time.monotonic()
    average = None
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 60, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        value = loss(step, torch.Generator().manual_seed(_seed(name, step)))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average = value.item() if average is None else 0.99 * average + 0.01 * value.item()
        if step % 100 == 99:
            seconds = (time.monotonic() - started) / (step + 1 - first)
            left = seconds * (steps - step - 1)
            print(f"{name}: step {step + 1}/{steps}, loss {average:.4f}, {left / 60:.1f} min left", flush=True)
        if time.monotonic() - last_saved > SAVE_EVERY:
            save(step + 1)
            last_saved = time.monotonic()
    if first < steps:
        save(steps)
    for module in modules:
        module.eval().requires_grad_(False)


def _seed(name: str, step: int) -> int:
    return int(np.random.SeedSequence([*name.encode(), step]).generate_state(1)[0])


def train_tokenizer(texts: list[str], folder: Path) -> CLIPTokenizer:
    """CLIP's form of byte-pair tokenizer: every byte, alone and at a word's end, and merges learnt from `texts`."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    clip = CLIPTokenizer().backend_tokenizer  # only for its normalizer and pre-tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=LEARNED_TOKENS, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    vocabulary = dict.fromkeys([*alphabet, *(byte + "</w>" for byte in alphabet), *learned["vocab"], *special])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, learned["merges"])]) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH, pad_token=special[1])


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids int64 [n, MAX_LENGTH], padded and truncated as the diffusers pipeline does it."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt").input_ids


def new_vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
    )  # fmt: skip
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # residual branches start at zero, or a short training learns too little
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    nn.init.constant_(vae.quant_conv.bias[4:], -4.0)  # a small posterior variance to begin with
    return vae


def vae_loss(vae: AutoencoderKL, sample: Callable[[torch.Generator], torch.Tensor]) -> Loss:
    """L1 + 2 MSE + a little KL on freshly composed images."""

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        image = sample(generator)
        posterior = vae.encode(image).latent_dist
        error = vae.decode(posterior.sample(generator)).sample - image
        return error.abs().mean() + 2 * error.square().mean() + 1e-6 * posterior.kl().mean()

    return loss


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=256, projection_dim=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_LENGTH, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.3)
    return encoder


def new_unet() -> UNet2DConditionModel:
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(48, 96, 96), layers_per_block=1,
        down_block_types=tuple(kind.format("Down") for kind in (attention, attention, plain)),
        up_block_types=tuple(kind.format("Up") for kind in (plain, attention, attention)),
        cross_attention_dim=HIDDEN, attention_head_dim=4, norm_num_groups=16,
    ).to(memory_format=torch.channels_last)  # fmt: skip


def scheduler(prediction_type: str) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip


def diffusion_loss(
    data: Dataset, latents: torch.Tensor, tokens: torch.Tensor, text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel, prediction_type: str,
) -> Loss:  # fmt: skip
    """Denoising loss; `tokens` int64 [p + 1, L], the last row being the empty prompt.

    For epsilon the weight min(1/abar, 20) keeps the noisiest timesteps, which a first-step scan looks at, from being
    ignored.
    """
    abar = scheduler(prediction_type).alphas_cumprod

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        image = torch.from_numpy(data.batch(step, BATCH))
        x0 = latents[image]
        caption = torch.from_numpy(data.image_prompt)[image]
        caption[torch.rand(BATCH, generator=generator) < CAPTION_DROPOUT] = len(tokens) - 1
        timestep = torch.randint(0, len(abar), (BATCH,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        a, s = (rate[timestep].sqrt()[:, None, None, None] for rate in (abar, 1 - abar))
        x_t = (a * x0 + s * noise).to(memory_format=torch.channels_last)
        hidden = text_encoder(tokens[caption]).last_hidden_state
        output = unet(x_t, timestep, hidden).sample
        target = noise if prediction_type == "epsilon" else a * noise - s * x0
        weight = (1 / abar[timestep]).clamp(max=20) if prediction_type == "epsilon" else torch.ones(BATCH)
        return (weight * (output - target).square().mean((1, 2, 3))).mean()

    return loss
