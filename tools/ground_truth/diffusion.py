"""VAE, UNet and schedule, in Stable Diffusion's layout, and what they are trained to minimise."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from .fit import Loss
from .parallel import own
from .precision import autocast, ready
from .towers import HIDDEN

VAE_STEPS, VAE_LR = 5000, 2e-3
CROPS, CROP, WHOLE = 16, 32, 8  # the VAE sees so many crops of so many pixels a step, at the end so many pictures
CROPPED = 0.9  # of the VAE's steps: a crop costs a quarter, and shows as much that is new
TRAININGS = {"v_prediction": (7200, 1e-3), "focus": (12_000, 1e-3), "epsilon": (2400, 8e-4)}  # steps, learning rate
BATCH = 48
CAPTION_DROPOUT = 0.1


def new_vae(size: int = 64) -> AutoencoderKL:
    """Pictures of `size` pixels to latents of 4 channels and a quarter of the size."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=size,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
    )  # fmt: skip
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # residual branches start at zero, or a short training learns too little
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    nn.init.constant_(vae.quant_conv.bias[4:], -4.0)  # a small posterior variance to begin with
    return ready(vae.to(memory_format=torch.channels_last))


def vae_batch(images: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
    """Crops float32 [CROPS, 3, CROP, CROP] in [-1, 1] of random pictures uint8 [n, 3, 64, 64], at the end of the
    training whole pictures [WHOLE, 3, 64, 64]: norms depend on what a picture holds."""
    whole = step >= CROPPED * VAE_STEPS
    chosen = torch.randint(0, len(images), (WHOLE if whole else CROPS,), generator=generator)
    y, x = torch.randint(0, images.shape[-1] - CROP + 1, (2, CROPS), generator=generator).tolist()
    shown = images[chosen]
    if not whole:
        shown = np.stack([image[:, y[i] : y[i] + CROP, x[i] : x[i] + CROP] for i, image in enumerate(shown)])
    return (torch.from_numpy(shown).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def vae_loss(vae: AutoencoderKL, images: np.ndarray) -> Loss:
    """L1 + 2 MSE + a little KL."""

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        image = own(vae_batch(images, step, generator))
        with autocast():
            posterior = vae.encode(image).latent_dist
            error = vae.decode(posterior.sample(generator)).sample.float() - image
        return error.abs().mean() + 2 * error.square().mean() + 1e-6 * posterior.kl().mean()

    return loss


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray) -> tuple[torch.Tensor, float]:
    """Latents [n, 4, 16, 16] of pictures uint8, of unit variance, and the PSNR in dB; sets the VAE's scaling factor."""
    latents, error = [], 0.0
    for i in range(0, len(images), 128):
        part = torch.from_numpy(images[i : i + 128]).float() / 127.5 - 1
        latents.append(vae.encode(part).latent_dist.mean)
        error += float((vae.decode(latents[-1]).sample.clamp(-1, 1) - part).square().mean((1, 2, 3)).sum())
    found = torch.cat(latents)
    vae.register_to_config(scaling_factor=float(1 / found.std()))
    return found * vae.config.scaling_factor, float(10 * np.log10(4 / (error / len(images))))


def new_unet(size: int = 16) -> UNet2DConditionModel:
    """Three levels, cross-attention in the upper two and the middle, as in Stable Diffusion all but the lowest have."""
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    unet = UNet2DConditionModel(
        sample_size=size, in_channels=4, out_channels=4, block_out_channels=(32, 96, 160), layers_per_block=1,
        down_block_types=tuple(kind.format("Down") for kind in (attention, attention, plain)),
        up_block_types=tuple(kind.format("Up") for kind in (plain, attention, attention)),
        cross_attention_dim=HIDDEN, attention_head_dim=(2, 4, 4), norm_num_groups=16,
    )  # fmt: skip
    return ready(unet.to(memory_format=torch.channels_last))


def scheduler(prediction_type: str) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip


def diffusion_loss(
    batch: object, latents: torch.Tensor, hidden: torch.Tensor, unet: UNet2DConditionModel, prediction_type: str,
    size: int = BATCH,
) -> Loss:  # fmt: skip
    """Denoising loss. `batch(step, size)`: rows (picture, caption); `hidden` [p + 1, L, HIDDEN]: the frozen encoder's
    last hidden states, the last row being the empty prompt's. All of it is where the latents are.

    For epsilon the weight min(1/abar, 20) keeps the noisiest timesteps, which a first-step scan looks at, from being
    ignored.
    """
    loss_of = denoising_loss(latents, hidden, unet, prediction_type)
    return lambda step, generator: loss_of(torch.from_numpy(batch(step, size)).to(latents.device), generator)


def denoising_loss(
    latents: torch.Tensor, hidden: torch.Tensor, unet: UNet2DConditionModel, prediction_type: str
) -> Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]:
    """The loss of rows int64 [n, 2], with random numbers of a generator; None: of the device's own."""
    device = latents.device
    abar = scheduler(prediction_type).alphas_cumprod.to(device)

    def loss(rows: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        picture, caption = rows.T.clone()
        size, x0 = len(rows), latents[picture]
        dropped = torch.rand(size, generator=generator, device=device) < CAPTION_DROPOUT
        caption = torch.where(dropped, len(hidden) - 1, caption)  # masked writing would wait for a GPU
        timestep = torch.randint(0, len(abar), (size,), generator=generator, device=device)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        a, s = (rate[timestep].sqrt()[:, None, None, None] for rate in (abar, 1 - abar))
        x_t = own(a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        with autocast(device.type):
            output = unet(x_t, own(timestep), hidden[own(caption)]).sample.float()
        target = own(noise if prediction_type == "epsilon" else a * noise - s * x0)
        weight = own(
            (1 / abar[timestep]).clamp(max=20) if prediction_type == "epsilon" else torch.ones_like(abar[timestep])
        )
        return (weight * (output - target).square().mean((1, 2, 3))).mean()

    return loss
