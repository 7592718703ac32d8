"""Whatever form a model has, a diffusers folder is made of it: changed parts are written, all others are links.

So there is one road from a checkpoint to a bundle. One network is in memory at a time. Files that are not safetensors
are read as tensors alone, never unpickled.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm, load_single_file_checkpoint

from engines.bundle import is_checkpoint
from engines.checkpoint import find_exporter, is_addon
from engines.embedding import TOKENIZERS, Embedding, add, vectors
from engines.hub import INDEX, fetched
from engines.interface import EngineError
from engines.layouts import LAYOUTS, layout_of, write_layout
from engines.lora import Lora, fuse, layers
from engines.manifest import sha256
from engines.partial import partial_folder, prefix
from engines.parts import Parts, class_of, read_json
from engines.weights import load, variant_of

FILES = (".safetensors", ".ckpt", ".pt", ".bin")


@dataclass(frozen=True)
class Changes:
    """What takes the place of a checkpoint's own parts: folders in diffusers' layout, or single files.

    `config`: a diffusers folder of the same model, without weights or with, that a single file's configurations,
    tokenizers and scheduler are taken from, or the name of one that is at hand; None: by the file's tensors.
    `tokenizer`: CLIP's, where no folder has it: see `engines.layouts`.
    """

    unet: Path | None = None
    vae: Path | None = None
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    config: Path | None = None
    tokenizer: Path | None = None

    @property
    def named(self) -> dict[str, str]:
        """What the manifest says of them: file names and hashes."""
        parts = {name: file for name in ("unet", "vae") if (file := getattr(self, name)) is not None}
        said = {name: _said(path) for name, path in parts.items()}
        said |= {f"lora {i}": f"{_said(lora.file)} weight {lora.weight:g}" for i, lora in enumerate(self.loras, 1)}
        words = ((at.file, f" word {at.word}" if at.word else "") for at in self.embeddings)
        return said | {f"embedding {i}": f"{_said(file)}{word}" for i, (file, word) in enumerate(words, 1)}


UNCHANGED = Changes()


@contextmanager
def assembled(source: Path, changes: Changes, variant: str | None, out: Path) -> Iterator[Path]:
    """A diffusers folder of `source` (such a folder, a single file, a hub id) with the changes; gone afterwards.

    What has to be written lies beside `out` meanwhile. Raises EngineError.
    """
    single = source.is_file()
    for option, given in (("layout", changes.config), ("tokenizer", changes.tokenizer)):
        if given is not None and not single:
            raise EngineError(f"--{option} {given}: for a single file, which {source} is not: leave it out")
    if not single and not changes.named:
        yield fetched(source, variant)
        return
    with partial_folder(out.parent, prefix(out)) as work:
        base = configured(source, changes, work) if single else fetched(source, variant)
        folder = work / "checkpoint"
        folder.mkdir()
        for item in base.iterdir():
            (folder / item.name).symlink_to(item.resolve())
        index = read_json(base / INDEX)
        exporter = find_exporter(base, index)
        parts = Parts(folder, exporter.held(index), index)
        if single:
            for name in parts.networks:
                _replace(parts, name, source)
        for name, given in ((exporter.denoiser, changes.unet), ("vae", changes.vae)):
            if given is not None:
                _replace(parts, name, given)
        if changes.loras:
            for name in parts.networks:
                _fuse(parts, name, changes.loras, index["_class_name"], variant)
        for embedding in changes.embeddings:
            _embed(parts, embedding, variant)
        yield folder


def configured(source: Path, changes: Changes, work: Path) -> Path:
    """Where the configurations of a single file are: a folder, or one that is written to `work`. Raises EngineError."""
    if source.suffix not in FILES:
        raise EngineError(f"{source}: needed a diffusers folder, a hub id, or a file {', '.join(FILES)}")
    if is_addon(source, Path(source.name)):
        raise EngineError(
            f"{source}: a LoRA, an embedding or other weights that are added to a model: name the model as SOURCE, "
            f"and a LoRA with --lora {source}, an embedding with --embedding {source}"
        )
    named = changes.config
    if named is not None and is_checkpoint(named):
        if changes.tokenizer is not None:
            raise EngineError(f"--tokenizer {changes.tokenizer}: {named} has one: leave it out")
        return named
    if named is not None and str(named) not in LAYOUTS:
        raise EngineError(f"{named}: no {INDEX} there; needed a diffusers folder, or {', '.join(LAYOUTS)}")
    write_layout(work / "layout", str(named or layout_of(source)), changes.tokenizer)
    return work / "layout"


def _replace(parts: Parts, name: str, given: Path) -> None:
    """Put another network in the place of a part: a folder as it is, or what a single file holds of it."""
    place = parts.folder / name
    if given.is_dir():
        inside = given / name if (given / name / "config.json").is_file() else given
        if not (inside / "config.json").is_file():
            raise EngineError(
                f"{given}: no config.json; needed a folder with a {parts.classes[name]}, or a file of one"
            )
        place.unlink()
        place.symlink_to(inside.resolve())
        return
    module = _of_file(parts, name, given)
    if lacking := [key for key, tensor in module.state_dict().items() if tensor.is_meta]:
        raise EngineError(
            f"{given}: of {parts.classes[name]} it lacks {len(lacking)} tensors, such as {lacking[0]}: it is of "
            "another model than the configuration; name that model's"
        )
    _write(parts, name, module)


def _of_file(parts: Parts, name: str, file: Path) -> Any:
    kind, folder = class_of(parts.classes[name]), str(parts.folder)
    try:
        if hasattr(kind, "from_single_file"):
            return kind.from_single_file(str(file), config=folder, subfolder=name, local_files_only=True)
        held = load_single_file_checkpoint(str(file))
        return create_diffusers_clip_model_from_ldm(
            kind, held, subfolder=name, config=folder, local_files_only=True, torch_dtype=None
        )
    except Exception as error:  # the libraries' errors for files of another layout share no base class
        raise EngineError(
            f"{file}: holds no {parts.classes[name]} that fits {parts.path(name)} ({error}): name a file of the model "
            "that the configuration is of; one that holds the denoising network alone is for --unet"
        ) from error


def _fuse(parts: Parts, name: str, loras: tuple[Lora, ...], pipeline: str, variant: str | None) -> None:
    """Write a part with what the LoRAs add to its weights; one that none of them touches stays."""
    added = {lora: found for lora in loras if (found := layers(lora, name, parts, getattr(diffusers, pipeline)))}
    if added:
        module = load(parts, name, variant_of(parts.folder / name, variant), "float32")
        for lora, found in added.items():
            fuse(module, lora, found)
        _write(parts, name, module)


def _embed(parts: Parts, embedding: Embedding, variant: str | None) -> None:
    """Write tokenizers and text encoders with a word more."""
    word, held = vectors(embedding, parts)
    for name, tensor in held.items():
        tokenizer, place = TOKENIZERS[name], parts.folder / name
        module, made = load(parts, name, variant_of(place, variant), "float32"), parts.tokenizer(tokenizer)
        add(word, tensor, made, module)
        _write(parts, name, module)
        _write(parts, tokenizer, made)


def _write(parts: Parts, name: str, made: Any) -> None:
    place = parts.folder / name
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    made.save_pretrained(place)
    parts.module.cache_clear()


def _said(path: Path) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return f"{path.name} {' '.join(sha256(file)[:16] for file in files)}"
