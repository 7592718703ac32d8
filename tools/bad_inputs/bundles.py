"""Bad bundles and checkpoints."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines import manifest
from engines.manifest import Manifest, sha256
from tools.bad_inputs.case import Case

SCAN = "scan captions.txt ..."
CHECKPOINT = "scan captions.txt --model checkpoint --store store"
XL = {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
SD = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}
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
        changed = change(manifest.read(folder / "bundle"))
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
    made = manifest.read(folder / "bundle")
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


CASES = [
    Case("no such bundle", "scan captions.txt --model none --store store"),
    Case("file for a bundle", "scan captions.txt --model captions.txt --store store"),
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
]
