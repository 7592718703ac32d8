"""Bad bundles and checkpoints."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines import manifest
from engines.bundle import read_manifest
from engines.manifest import Manifest, sha256
from tools.bad_inputs.case import Case

SCAN = "scan captions.txt ..."
CHECKPOINT = "scan captions.txt --model checkpoint --store store"
XL = {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
SD = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}
SMALL = Path(__file__).parents[2] / "tests/small/v_prediction"
Spoil = Callable[[Path], object]


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    """A file of the bundle, changed."""

    def spoil(folder: Path) -> None:
        path = folder / "bundle" / name
        content = path.read_bytes()
        path.unlink()  # a link to the good one
        path.write_bytes(change(content))

    return spoil


def flipped(content: bytes) -> bytes:
    """One bit of the middle byte turned."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def without(name: str) -> Spoil:
    return lambda folder: (folder / "bundle" / name).unlink()


def forged(change: Callable[[Manifest], Manifest]) -> Spoil:
    """A manifest that says something else, with the right fingerprint."""

    def spoil(folder: Path) -> None:
        changed = change(read_manifest(folder / "bundle"))
        without(manifest.FILE)(folder)
        changed.write(folder / "bundle")

    return spoil


def named(file: str) -> Spoil:
    """A manifest whose UNet is another file, with its hash."""

    def change(made: Manifest) -> Manifest:
        unet = replace(made.components["unet"], files={file: sha256(Path("bundle") / file)})
        return replace(made, components=dict(made.components) | {"unet": unet})

    return forged(change)


def no_tokenizer(folder: Path) -> None:
    """`tokenizer.json` is JSON, and nothing more."""
    made = read_manifest(folder / "bundle")
    rewritten("tokenizer.json", lambda _: b"{}")(folder)
    without(manifest.FILE)(folder)
    replace(made, tokenizer={"tokenizer.json": sha256(folder / "bundle/tokenizer.json")}).write(folder / "bundle")


def without_unet(made: Manifest) -> Manifest:
    return replace(made, components={name: part for name, part in made.components.items() if name != "unet"})


def endless(schedule: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in schedule.items() if name != "beta_end"}


def checkpoint(index: str) -> Spoil:
    """A diffusers folder that holds nothing but its index."""

    def spoil(folder: Path) -> None:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint/model_index.json").write_text(index)

    return spoil


def small(file: str, **changes: object) -> Spoil:
    """The small model's checkpoint, with other values in one of its JSON files; None takes one away."""

    def spoil(folder: Path) -> None:
        copy = Path(shutil.copytree(SMALL, folder / "checkpoint"))
        said = json.loads((copy / file).read_text(encoding="utf-8")) | changes
        (copy / file).write_text(json.dumps({name: value for name, value in said.items() if value is not None}))

    return spoil


def added(file: str) -> Spoil:
    """The small model's checkpoint with another file in it."""

    def spoil(folder: Path) -> None:
        (shutil.copytree(SMALL, folder / "checkpoint") / file).write_text("added")

    return spoil


def weights(file: str, change: Callable[[Any], object]) -> Spoil:
    """The small model's checkpoint with other tensors."""

    def spoil(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = shutil.copytree(SMALL, folder / "checkpoint") / file
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return spoil


def unlisted(folder: Path) -> None:
    """A text encoder whose first weight lies in a file that the manifest does not list."""
    import onnx
    from onnx.external_data_helper import set_external_data

    made, graph = read_manifest(folder / "bundle"), onnx.load(folder / "bundle/text_encoder.onnx")
    set_external_data(graph.graph.initializer[0], "../captions.txt")
    graph.graph.initializer[0].ClearField("raw_data")
    rewritten("text_encoder.onnx", lambda _: graph.SerializeToString())(folder)
    files = {"text_encoder.onnx": sha256(folder / "bundle/text_encoder.onnx")}
    encoder = replace(made.components["text_encoder"], files=files)
    without(manifest.FILE)(folder)
    replace(made, components=dict(made.components) | {"text_encoder": encoder}).write(folder / "bundle")


def padded(folder: Path) -> None:
    """A tokenizer that pads to 2,000,000,000 tokens."""
    made = read_manifest(folder / "bundle")
    tokens = json.loads((folder / "bundle/tokenizer.json").read_text(encoding="utf-8"))
    tokens["padding"]["strategy"] = {"Fixed": 2_000_000_000}
    rewritten("tokenizer.json", lambda _: json.dumps(tokens).encode())(folder)
    without(manifest.FILE)(folder)
    replace(made, tokenizer={"tokenizer.json": sha256(folder / "bundle/tokenizer.json")}).write(folder / "bundle")


BROKEN = [
    Case("latents of no known size", SCAN, forged(lambda made: replace(made, latent_std=float("nan")))),
    Case("latent that fills no memory", SCAN, forged(lambda made: replace(made, latent_shape=(4, -8, 8)))),
    Case("no training timesteps", SCAN,
         forged(lambda made: replace(made, schedule={**made.schedule, "num_train_timesteps": 0}))),
    Case("padding of 2,000,000,000 tokens", SCAN, padded),
    Case("weights in a file that is not listed", SCAN, unlisted),
]  # fmt: skip
CHECKPOINTS = [
    Case("checkpoint of a ControlNet", CHECKPOINT,
         small("model_index.json", _class_name="StableDiffusionControlNetPipeline")),
    Case("checkpoint without a text encoder", CHECKPOINT, small("model_index.json", text_encoder=None)),
    Case("flow scheduler", CHECKPOINT,
         small("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])),
    Case("no beta_schedule", CHECKPOINT, small("scheduler/scheduler_config.json", beta_schedule=None)),
    Case("no sample_size", CHECKPOINT, small("unet/config.json", sample_size=None)),
    Case("UNet of another text encoder", CHECKPOINT, small("unet/config.json", cross_attention_dim=768)),
    Case("UNet of classes", CHECKPOINT, small("unet/config.json", num_class_embeds=10)),
    Case("UNet of LCM", CHECKPOINT, small("unet/config.json", time_cond_proj_dim=256)),
    Case("attention mask", CHECKPOINT, small("text_encoder/config.json", use_attention_mask=True)),
    Case("tokenizer without a length", CHECKPOINT, small("tokenizer/tokenizer_config.json", model_max_length=None)),
    Case("LoRA beside the model", CHECKPOINT, added("pytorch_lora_weights.bin")),
    Case("UNet without its first layer", CHECKPOINT,
         weights("unet/diffusion_pytorch_model.safetensors", lambda tensors: tensors.pop("conv_in.weight"))),
    Case("UNet that diverged", "export checkpoint out",
         weights("unet/diffusion_pytorch_model.safetensors", lambda tensors: tensors["conv_in.bias"].fill(np.nan))),
]  # fmt: skip
CASES = [
    Case("no manifest", SCAN, without("engine.json")),
    Case("empty manifest", SCAN, rewritten("engine.json", lambda _: b"")),
    Case("manifest cut in half", SCAN, rewritten("engine.json", lambda content: content[: len(content) // 2])),
    Case("manifest that is a list", SCAN, rewritten("engine.json", lambda _: b"[]")),
    Case("manifest not UTF-8", SCAN, rewritten("engine.json", lambda _: b'{"format": "\xe9"}')),
    Case("edited manifest", SCAN, rewritten("engine.json", lambda it: it.replace(b"0.00085", b"0.00095"))),
    Case("bit turned in a graph", SCAN, rewritten("unet.onnx", flipped)),
    Case("bit turned in the tokenizer", SCAN, rewritten("tokenizer.json", flipped)),
    Case("no graph", SCAN, without("text_encoder.onnx")),
    Case("bundle of a later format", SCAN, forged(lambda made: replace(made, format=2))),
    Case("file outside the bundle", SCAN, named("../captions.txt")),
    Case("graph that is none", SCAN, named("tokenizer.json")),
    Case("graph of another network", SCAN, named("vae_decoder.onnx")),
    Case("tokenizer that is none", SCAN, no_tokenizer),
    Case("no UNet", SCAN, forged(without_unet)),
    Case("unknown family", SCAN, forged(lambda made: replace(made, family="pixels"))),
    Case("unknown prediction", SCAN, forged(lambda made: replace(made, prediction_type="sample"))),
    Case("unknown schedule", SCAN, forged(lambda made: replace(made, schedule={**made.schedule, "curve": "cosine"}))),
    Case("schedule without a curve", SCAN, forged(lambda made: replace(made, schedule={}))),
    Case("schedule without an end", SCAN, forged(lambda made: replace(made, schedule=endless(made.schedule)))),
    Case("a checkpoint, on the bundles' backend", f"{CHECKPOINT} --backend cpu", checkpoint(json.dumps(SD))),
    Case("a bundle, on the checkpoints' backend", f"{SCAN} --backend torch"),
    Case("checkpoint of another pipeline", CHECKPOINT, checkpoint(json.dumps(XL))),
    Case("checkpoint's index cut in half", CHECKPOINT, checkpoint(json.dumps(SD)[:99])),
    Case("checkpoint without weights", CHECKPOINT, checkpoint(json.dumps(SD))),
    *BROKEN,
    *CHECKPOINTS,
]
