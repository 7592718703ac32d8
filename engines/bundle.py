"""A verified model in a folder, and what may open it how."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.intact import check_files
from engines.interface import BundleError, Engine, EngineError
from engines.manifest import FILE, Manifest, parse
from engines.onnx_graph import check_graph
from engines.validate import check_manifest, check_tokenizer, encoder_of

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Bundle:
    """A verified model: folder, manifest, tokenizers by name (JSON of the `tokenizers` library), engines on demand.

    `precision`: what the networks compute in, one of PRECISIONS, which may differ from what the manifest's weights are
    stored in; in an int8 bundle, what all but the quantised layers compute in. `passed_over`: why `auto` did not take
    the backends before this one, a line each.
    """

    folder: Path
    manifest: Manifest
    tokenizers: Mapping[str, str]
    backend: str
    precision: str
    _engine: Callable[[str], Engine]
    passed_over: tuple[str, ...] = ()

    def engine(self, component: str) -> Engine:
        """Open one component. Raises EngineError where the bundle has none of this name."""
        if component not in self.manifest.components:
            held = ", ".join(self.manifest.components)
            raise EngineError(f"the bundle holds {held}, but no {component}: export the model again")
        return self._engine(component)


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a diffusers checkpoint rather than a bundle."""
    return (folder / "model_index.json").is_file()


def read_manifest(folder: Path, reread: bool = True) -> Manifest:
    """Read and verify a bundle's manifest and every file that it names; `reread`: also files that were found intact.

    Raises BundleError if the folder is no bundle, of another format, incomplete, if a byte differs, or if it cannot be
    true of any model or of its own files.
    """
    path = folder / FILE
    if not path.is_file():
        raise BundleError(f"{folder}: no {FILE}, so not a bundle: make one with `overscan export CHECKPOINT {folder}`")
    manifest = parse(path)
    check_manifest(manifest, path)
    check_files(folder, _files(manifest), reread)
    graphs = {name: check_graph(folder, component) for name, component in manifest.components.items()}
    for file in manifest.tokenizer:
        name = encoder_of(file)
        check_tokenizer(folder / file, manifest.components.get(name), graphs[name].embedded if name in graphs else {})
    return manifest


def read_bundle(folder: Path, backend: str, reread: bool = False) -> tuple[Manifest, dict[str, str]]:
    """A bundle's manifest, verified as of `read_manifest`, and its tokenizers, by name.

    Raises BundleError, also for a checkpoint.
    """
    if is_checkpoint(folder):
        raise BundleError(
            f'{folder}: a diffusers checkpoint, and the "{backend}" backend runs bundles: use --backend torch, or '
            f"`overscan export {folder} BUNDLE` and name BUNDLE"
        )
    manifest = read_manifest(folder, reread)
    return manifest, {Path(file).stem: (folder / file).read_text(encoding="utf-8") for file in manifest.tokenizer}


def read_graphs(folder: Path, backend: str) -> tuple[Manifest, dict[str, str]]:
    """A bundle of ONNX graphs alone. Raises EngineError for one in int8, whose UNet is OpenVINO's."""
    manifest, tokenizers = read_bundle(folder, backend)
    if manifest.precision == "int8":
        raise EngineError(
            f'{folder}: a bundle in int8, which OpenVINO alone runs, and the "{backend}" backend runs ONNX graphs: use '
            "--backend openvino, or export the model again in float32"
        )
    return manifest, tokenizers


def choose_precision(backend: str, asked: str, able: Sequence[str]) -> str:
    """The precision asked for, or for "auto" the first that the backend is able to run. Raises EngineError."""
    if asked == "auto":
        return able[0]
    if asked not in able:
        raise EngineError(
            f'precision {asked!r} was asked, and the "{backend}" backend runs this model here in {", ".join(able)}: '
            f"use --precision {able[0]}, or another --backend"
        )
    return asked


def as_exported(backend: str, asked: str, manifest: Manifest) -> str:
    """The precision of a bundle's graphs, for a backend that takes no other. Raises EngineError."""
    if asked not in ("auto", manifest.precision):
        raise EngineError(
            f'precision {asked!r} was asked, and the "{backend}" backend runs graphs as they were exported, here in '
            f"{manifest.precision}: use --precision {manifest.precision}, or export the model again with --dtype"
        )
    return manifest.precision


def _files(manifest: Manifest) -> dict[str, str]:
    files = dict(manifest.tokenizer)
    for component in manifest.components.values():
        files.update(component.files)
    return files
