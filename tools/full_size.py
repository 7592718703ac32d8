"""Architectures at full size, random weights: checkpoints to try export, memory and speed on.

    python tools/full_size.py FOLDER [--family sd|sdxl]

Shapes are those of the published configurations: Stable Diffusion 1.5 in float32 (UNet 860 M, text encoder 123 M, VAE
84 M parameters), Stable Diffusion XL in float16 (UNet 2,567 M, text encoders 123 and 695 M). One part is in memory at a
time; the tokenizer is the tests' small model's, padded to 77. Their scores mean nothing.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TOKENIZER = Path(__file__).parent.parent / "tests/small/v_prediction/tokenizer"
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
Part = Callable[[], object]


def clip(**settings: object) -> CLIPTextConfig:
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    given = {"vocab_size": 49408, "max_position_embeddings": 77}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPTextConfig(**given | ends | settings)


LARGE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
GIANT = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip


def vae(size: int, **settings: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=size,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **settings,
    )  # fmt: skip


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)


def unet_xl() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128, cross_attention_dim=2048, attention_head_dim=(5, 10, 20), use_linear_projection=True,
        block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10), addition_time_embed_dim=256,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


SD: Mapping[str, Part] = {
    "unet": lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "vae": lambda: vae(512),
    "text_encoder": lambda: CLIPTextModel(clip(**LARGE)),
    "tokenizer": tokenizer,
    "scheduler": lambda: DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
}
SDXL: Mapping[str, Part] = {
    "unet": unet_xl,
    "vae": lambda: vae(1024, scaling_factor=0.13025, force_upcast=True),
    "text_encoder": lambda: CLIPTextModel(clip(**LARGE)),
    "text_encoder_2": lambda: CLIPTextModelWithProjection(clip(**GIANT)),
    "tokenizer": tokenizer,
    "tokenizer_2": tokenizer,
    "scheduler": lambda: EulerDiscreteScheduler(**SCHEDULE),
}
FAMILIES = {
    "sd": ("StableDiffusionPipeline", SD, torch.float32, {"safety_checker": [None, None]}),
    "sdxl": ("StableDiffusionXLPipeline", SDXL, torch.float16, {"force_zeros_for_empty_prompt": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="sd")
    arguments = parser.parse_args()
    pipeline, parts, dtype, settings = FAMILIES[arguments.family]
    index = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **settings}
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    for name, make in parts.items():
        part = make()
        part.save_pretrained(arguments.folder / name)
        library = "transformers" if type(part).__module__.startswith("transformers") else "diffusers"
        index[name] = [library, type(part).__name__]
        if isinstance(part, torch.nn.Module):
            print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:,.1f} M parameters", flush=True)
    (arguments.folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
