"""A Stable Diffusion checkpoint of some 100 kB with random weights, and ways to spoil copies of it."""

import json
import shutil
from pathlib import Path

from conftest import CHECKPOINTS

SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip


def write(folder: Path, scheduler=None, text_encoder=None, vae=None, **unet) -> Path:
    """A pipeline saved by diffusers, with other settings of its parts where asked for."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    settings = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
        "cross_attention_dim": 16, "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=1502, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=1500, eos_token_id=1501, pad_token_id=1501, **text_encoder or {},
    )  # fmt: skip
    images = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "layers_per_block": 1}
    types = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(**settings | unet), text_encoder=CLIPTextModel(clip),
        vae=AutoencoderKL(**images | types | (vae or {})),
        tokenizer=CLIPTokenizer.from_pretrained(CHECKPOINTS["demo-v"] / "tokenizer"),
        scheduler=scheduler or DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_xl(folder: Path, scheduler=None, vae=None, unet=None, **pipeline) -> Path:
    """A Stable Diffusion XL pipeline saved by diffusers."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    clip = {
        "vocab_size": 1502, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 16, "bos_token_id": 1500,
        "eos_token_id": 1501, "pad_token_id": 1501,
    }  # fmt: skip
    second = {"hidden_size": 24, "num_attention_heads": 3, "projection_dim": 24}
    settings = {
        "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
        "cross_attention_dim": 40, "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24 + 6 * 8,
        "transformer_layers_per_block": (1, 2),
    }  # fmt: skip
    images = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "layers_per_block": 1}
    types = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    numbers = {"scaling_factor": 0.13025, "force_upcast": True}
    tokenizer = CHECKPOINTS["demo-v"] / "tokenizer"
    StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(**settings | (unet or {})),
        vae=AutoencoderKL(**images | types | numbers | (vae or {})),
        text_encoder=CLIPTextModel(CLIPTextConfig(**clip)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**clip | second)),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer),
        tokenizer_2=CLIPTokenizer.from_pretrained(tokenizer, pad_token="!"),
        scheduler=scheduler or EulerDiscreteScheduler(**SCHEDULE), **pipeline,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def edited(folder: Path, name: str, **changes) -> None:
    """A JSON file with other values; `...` takes a key away."""
    made = json.loads((folder / name).read_text()) | changes
    kept = {key: value for key, value in made.items() if value is not ...}
    (folder / name).write_text(json.dumps(kept))


def reweighted(folder: Path, change) -> None:
    """A safetensors file with `change(tensors)` for its tensors."""
    from safetensors.torch import load_file, save_file

    (file,) = folder.glob("*.safetensors")
    tensors = change(load_file(file))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})


def copied(tiny: Path, folder: Path) -> Path:
    return Path(shutil.copytree(tiny, folder / "model"))
