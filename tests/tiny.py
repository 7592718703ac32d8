"""A Stable Diffusion checkpoint of some 100 kB with random weights, and ways to spoil copies of it."""

import io
import json
import shutil
from pathlib import Path

from small import CHECKPOINTS

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
        tokenizer=CLIPTokenizer.from_pretrained(CHECKPOINTS["v_prediction"] / "tokenizer"),
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
    tokenizer = CHECKPOINTS["v_prediction"] / "tokenizer"
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


CLIP = {
    "vocab_size": 1502, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 16, "bos_token_id": 1500, "eos_token_id": 1501, "pad_token_id": 1501,
}  # fmt: skip
IMAGES = {
    "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
WORDS = ("a", "red", "cat", "on", "mat", "two", "boats", "barn", "s", "t", "e", "o", "i", "n", "r", "l", "d")


def t5_tokenizer():
    """Of T5's kind, with a few words."""
    from transformers import T5Tokenizer

    pieces = [*((f"▁{word}", -2.0 - i / 8) for i, word in enumerate(WORDS)), *((word, -6.0) for word in WORDS)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    made = T5Tokenizer(vocab=[*special, ("▁", -4.0), *pieces], extra_ids=0, model_max_length=512)
    made.init_kwargs["extra_ids"] = 0
    return made


def sentencepiece(folder: Path) -> None:
    """T5's tokenizer as the library that trained it writes it, and nothing else."""
    from sentencepiece import SentencePieceTrainer

    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]), model_writer=trained,
        vocab_size=32, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(trained.getvalue())


def t5_encoder(width: int):
    """Of T5's kind."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=64, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
            is_encoder_decoder=False, use_cache=False, tie_word_embeddings=False,
        )
    )  # fmt: skip


def write_sd3(folder: Path, scheduler=None, t5: bool = True, **transformer) -> Path:
    """A Stable Diffusion 3 pipeline saved by diffusers, with T5 or without."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    second = {"hidden_size": 24, "num_attention_heads": 3, "projection_dim": 24}
    settings = {
        "sample_size": 8, "in_channels": 16, "out_channels": 16, "num_layers": 2, "attention_head_dim": 8,
        "num_attention_heads": 2, "caption_projection_dim": 16, "joint_attention_dim": 48,
        "pooled_projection_dim": 16 + 24, "pos_embed_max_size": 12,
    }  # fmt: skip
    tokenizer = CHECKPOINTS["v_prediction"] / "tokenizer"
    numbers = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False}
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**settings | transformer),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(**IMAGES | numbers, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP, projection_dim=16)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP | second)),
        text_encoder_3=t5_encoder(48) if t5 else None, tokenizer=CLIPTokenizer.from_pretrained(tokenizer),
        tokenizer_2=CLIPTokenizer.from_pretrained(tokenizer, pad_token="!"), tokenizer_3=t5_tokenizer() if t5 else None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_pixart(folder: Path, scheduler=None, sigma: bool = False, **transformer) -> Path:
    """A PixArt alpha or sigma pipeline saved by diffusers; alpha is told the image's size."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    torch.manual_seed(0)
    settings = {
        "sample_size": 8 if sigma else 128, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 3, "cross_attention_dim": 24, "caption_channels": 48,
    }  # fmt: skip
    betas = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    parts = {
        "transformer": PixArtTransformer2DModel(**settings | transformer),
        "vae": AutoencoderKL(**IMAGES, latent_channels=4),
        "scheduler": scheduler or DPMSolverMultistepScheduler(**betas), "text_encoder": t5_encoder(48),
        "tokenizer": t5_tokenizer(),
    }  # fmt: skip
    (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(**parts).save_pretrained(folder)
    return folder


def write_flux(folder: Path, scheduler=None, **transformer) -> Path:
    """A FLUX dev pipeline saved by diffusers."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    settings = {
        "in_channels": 64, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
        "joint_attention_dim": 48, "pooled_projection_dim": 16, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    numbers = {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False}
    FluxPipeline(
        transformer=FluxTransformer2DModel(**settings | transformer),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKL(**IMAGES | numbers, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP)), text_encoder_2=t5_encoder(48),
        tokenizer=CLIPTokenizer.from_pretrained(CHECKPOINTS["v_prediction"] / "tokenizer"), tokenizer_2=t5_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_schnell(folder: Path) -> Path:
    """FLUX schnell: told no guidance, and one path for all sizes."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return write_flux(folder, FlowMatchEulerDiscreteScheduler(shift=1.0), guidance_embeds=False)


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
