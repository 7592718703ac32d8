"""Networks as named arrays in and out, behind one method; `open_bundle` is the way in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines import manifest as manifests
from engines.interface import Engine, EngineError, TensorSpec
from engines.manifest import Manifest

__all__ = ["BACKENDS", "Bundle", "Engine", "EngineError", "Manifest", "TensorSpec", "open_bundle", "open_onnx"]


@dataclass(frozen=True)
class Bundle:
    """A verified model: its manifest, its tokenizer (JSON of the `tokenizers` library), and its engines on demand."""

    manifest: Manifest
    tokenizer: str
    backend: str
    _engine: Callable[[str], Engine]

    def engine(self, component: str) -> Engine:
        """Open one component. Raises EngineError where the bundle has none of this name."""
        if component not in self.manifest.components:
            held = ", ".join(self.manifest.components)
            raise EngineError(f"the bundle holds {held}, but no {component}: export the model again")
        return self._engine(component)


def _open_cpu(folder: Path) -> Bundle:
    from engines.ort import OrtEngine

    if is_checkpoint(folder):
        raise EngineError(
            f'{folder}: a diffusers checkpoint, and the "cpu" backend runs bundles: use --backend torch, or '
            f"`overscan export {folder} BUNDLE` and name BUNDLE"
        )
    manifest = manifests.read(folder)
    tokenizer = (folder / next(iter(manifest.tokenizer))).read_text()
    return Bundle(manifest, tokenizer, "cpu", lambda name: OrtEngine(folder, manifest.components[name]))


def _open_torch(folder: Path) -> Bundle:
    if not is_checkpoint(folder):
        raise EngineError(
            f'{folder}: the "torch" backend runs a diffusers checkpoint itself (a folder with model_index.json): '
            "name that folder, or use --backend cpu"
        )
    try:
        from engines.torch_ref import open_checkpoint
    except ImportError as error:
        raise EngineError('the "torch" backend needs torch and diffusers: pip install "overscan[export]"') from error

    checkpoint = open_checkpoint(folder)
    return Bundle(checkpoint.manifest, checkpoint.tokenizer, "torch", checkpoint.engine)


BACKENDS: dict[str, Callable[[Path], Bundle]] = {"cpu": _open_cpu, "torch": _open_torch}


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a diffusers checkpoint rather than a bundle."""
    return (folder / "model_index.json").is_file()


def open_bundle(folder: str | Path, backend: str = "auto") -> Bundle:
    """Open a bundle with a backend, or refuse.

    `auto` is `cpu` for a bundle and `torch` for a diffusers checkpoint. Raises EngineError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EngineError(f"{folder}: no such folder; needed a bundle (made by `overscan export`)")
    if backend == "auto":
        backend = "torch" if is_checkpoint(folder) else "cpu"
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r} is unknown; there are auto, {', '.join(BACKENDS)}")
    return BACKENDS[backend](folder)


def open_onnx(path: str | Path) -> Engine:
    """Open an ONNX file that belongs to no bundle, on the CPU. Raises EngineError."""
    from engines.ort import OrtEngine, read_component

    path = Path(path)
    if not path.is_file():
        raise EngineError(f"{path}: no such file; needed a network in an ONNX file")
    return OrtEngine(path.parent, read_component(path))
