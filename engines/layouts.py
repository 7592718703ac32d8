"""Configurations of models whose single files hold weights alone: Stable Diffusion 1, 2 and XL, as they were published.

What a file is shows in the names and shapes of its tensors; whether a Stable Diffusion 2 predicts v or the noise does
not, so it has to be named. CLIP's vocabulary is not among them: it is read from where it is.
"""

import gzip
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES as KEYS
from diffusers.loaders.single_file_utils import infer_diffusers_model_type, load_single_file_checkpoint
from transformers import CLIPTokenizer

from engines.families import EXPORTERS
from engines.interface import EngineError

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # CLIP's, as OpenAI published it
MERGES = 49152 - 256 - 2  # of its lines those that CLIP has
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
         "steps_offset": 1, "timestep_spacing": "leading", "set_alpha_to_one": False, "clip_sample": False}  # fmt: skip
PNDM = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **BETAS}
VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4,
    "sample_size": 512, "scaling_factor": 0.18215,
}  # fmt: skip
CLIP = {
    "model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768, "max_position_embeddings": 77,
    "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip
VIT_H = CLIP | {  # the pipeline conditions on the layer before the last, so the last is left out
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu", "projection_dim": 512,
}  # fmt: skip
BIG_G = CLIP | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
UNET = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
UNET_2 = UNET | {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
UNET_XL = UNET | {
    "sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
Configs = Mapping[str, Mapping[str, Any]]  # of each part of a pipeline
V = {"prediction_type": "v_prediction"}
EULER = BETAS | {"_class_name": "EulerDiscreteScheduler"}
LAYOUTS: Mapping[str, Configs] = {
    "sd1": {"unet": UNET, "vae": VAE, "text_encoder": CLIP, "scheduler": PNDM},
    "sd2-base": {"unet": UNET_2, "vae": VAE, "text_encoder": VIT_H, "scheduler": PNDM},
    "sd2-v": {
        "unet": UNET_2 | {"sample_size": 96, "upcast_attention": True}, "vae": VAE | {"sample_size": 768},
        "text_encoder": VIT_H, "scheduler": BETAS | V | {"_class_name": "DDIMScheduler"},
    },
    "sdxl": {
        "unet": UNET_XL, "vae": VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": CLIP, "text_encoder_2": BIG_G, "scheduler": EULER,
    },
}  # fmt: skip
KINDS = {"v1": "sd1", "xl_base": "sdxl"}  # diffusers' words for what a file is
PIPELINES = {"sdxl": "StableDiffusionXLPipeline"}  # the others are of StableDiffusionPipeline
PADDED = {
    "sd2-base": "tokenizer",
    "sd2-v": "tokenizer",
    "sdxl": "tokenizer_2",
}  # with "!", as OpenCLIP does, the others with the end
OTHERS = "name with --layout a diffusers folder of the model that it was made from (weights are not read)"
TWO = (
    "a Stable Diffusion 2, of which no tensor says what it predicts: name --layout sd2-base (512 pixels, the noise) or "
    "--layout sd2-v (768 pixels, v)"
)


def layout_of(file: Path) -> str:
    """Which of LAYOUTS a single file is of, by its tensors. Raises EngineError."""
    try:
        held = load_single_file_checkpoint(str(file))
        kind = str(infer_diffusers_model_type(held))
    except Exception as error:  # the libraries' errors for files of another kind share no base class
        raise EngineError(f"{file}: cannot be read as a model ({error}): {OTHERS}") from error
    if kind == "v2":
        raise EngineError(f"{file}: {TWO}")
    if "v_pred" in held or "ztsnr" in held:  # which trainers of such models add
        raise EngineError(
            f"{file}: says that it predicts v, as no {KINDS.get(kind, kind)} that was published: {OTHERS}"
        )
    whole = kind != "v1" or all(KEYS[name] in held for name in ("v1", "clip"))  # v1 is the guess for whatever it is not
    if kind not in KINDS or not whole:
        found = kind if whole else "unknown"
        raise EngineError(f"{file}: of a kind ({found}) whose configuration is not at hand: {OTHERS}")
    return KINDS[kind]


def write_layout(folder: Path, name: str, vocabulary: Path | None) -> None:
    """A diffusers folder without weights, of one of LAYOUTS. Raises EngineError where there is no vocabulary."""
    exporter = next(of for of in EXPORTERS if PIPELINES.get(name, "StableDiffusionPipeline") in of.pipelines)
    index: dict[str, Any] = {"_class_name": exporter.pipelines[0]}
    for part, config in LAYOUTS[name].items():
        kind = exporter.parts.get(part, config.get("_class_name"))
        index[part] = ["transformers" if "model_type" in config else "diffusers", kind]
        (folder / part).mkdir(parents=True)
        file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        file.write_text(json.dumps(config), encoding="utf-8")
    for part in exporter.parts.keys() - LAYOUTS[name].keys():
        index[part] = ["transformers", exporter.parts[part]]
        pad = "!" if PADDED.get(name) == part else "<|endoftext|>"
        _tokenizer(vocabulary, pad).save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def _tokenizer(vocabulary: Path | None, pad: str) -> Any:
    """CLIP's, of its published vocabulary or of a folder with a tokenizer."""
    path = _installed() if vocabulary is None else vocabulary
    if path is None:
        raise EngineError(
            "CLIP's vocabulary is not at hand: name with --tokenizer a folder with a CLIP tokenizer (that of any "
            f"diffusers folder of the family), or the file {VOCABULARY}, which the package open_clip_torch holds (pip "
            "download --no-deps open_clip_torch, and unzip)"
        )
    try:
        if path.is_dir():
            return CLIPTokenizer.from_pretrained(path, pad_token=pad, model_max_length=77, local_files_only=True)
        return CLIPTokenizer(*_byte_pairs(path), pad_token=pad, model_max_length=77)
    except Exception as error:  # the libraries' errors share no base class
        raise EngineError(f"{path}: no CLIP tokenizer ({error}): needed a folder with one, or {VOCABULARY}") from error


def _installed() -> Path | None:
    """The vocabulary of an installed open_clip_torch, without importing it."""
    try:
        held = files("open_clip_torch") or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in held if file.name == VOCABULARY), None)


def _byte_pairs(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of CLIP: bytes, bytes that end a word, merged pairs, and two marks."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()[1 : MERGES + 1]
    if len(lines) < MERGES:
        raise ValueError(f"{len(lines)} merged pairs, of {MERGES}")
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    shown = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]  # the other bytes follow
    letters = shown + [chr(256 + i) for i in range(256 - len(shown))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    return {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}, merges
