"""Networks as named arrays in and out, behind one method; `open_bundle` is the way in."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.bundle import PRECISIONS, Bundle, as_exported, choose_precision, is_checkpoint, read_bundle, read_graphs
from engines.installed import install_line
from engines.interface import BundleError, Engine, EngineError, TensorSpec
from engines.manifest import Manifest
from engines.quiet import silence
from engines.validate import IDS

silence()  # before any runtime is imported, which backends do when they are opened

__all__ = [
    "AUTO",
    "BACKENDS",
    "PRECISIONS",
    "Bundle",
    "BundleError",
    "Engine",
    "EngineError",
    "Manifest",
    "TensorSpec",
    "is_checkpoint",
    "open_bundle",
    "open_onnx",
    "prove",
    "read_bundle",
]


def _open_tensorrt(folder: Path, precision: str) -> Bundle:
    from engines.plans import plan_folder
    from engines.tensorrt import TensorRtEngine, require

    gpu = require()  # first, as reading a large bundle takes seconds
    plan_folder()
    manifest, tokenizers = read_graphs(folder, "tensorrt")
    chosen = as_exported("tensorrt", precision, manifest)

    def engine(name: str) -> Engine:
        return TensorRtEngine(folder, manifest, name, gpu)

    return Bundle(folder, manifest, tokenizers, "tensorrt", chosen, engine)


def _open_cuda(folder: Path, precision: str) -> Bundle:
    from engines.cuda import CudaEngine, require_cuda

    require_cuda()
    manifest, tokenizers = read_graphs(folder, "cuda")
    chosen = as_exported("cuda", precision, manifest)

    def engine(name: str) -> Engine:
        return CudaEngine(folder, manifest.components[name])

    return Bundle(folder, manifest, tokenizers, "cuda", chosen, engine)


def _open_openvino(folder: Path, precision: str) -> Bundle:
    from engines.openvino import OpenVinoEngine, compiled_folder, precisions

    able = precisions()  # first, as reading a large bundle takes seconds
    manifest, tokenizers = read_bundle(folder, "openvino")
    chosen = choose_precision("openvino", precision, able)
    cache = compiled_folder(manifest.fingerprint, chosen)

    def engine(name: str) -> Engine:
        return OpenVinoEngine(folder, manifest.components[name], chosen, cache)

    return Bundle(folder, manifest, tokenizers, "openvino", chosen, engine)


def _open_cpu(folder: Path, precision: str) -> Bundle:
    from engines.ort import OrtEngine

    manifest, tokenizers = read_graphs(folder, "cpu")
    chosen = choose_precision("cpu", precision, (manifest.precision,))

    def engine(name: str) -> Engine:
        return OrtEngine(folder, manifest.components[name])

    return Bundle(folder, manifest, tokenizers, "cpu", chosen, engine)


def _open_torch(folder: Path, precision: str) -> Bundle:
    return _open_checkpoint("torch", folder, precision, "cpu", ("float32",))


def _open_torch_cuda(folder: Path, precision: str) -> Bundle:
    return _open_checkpoint("torch-cuda", folder, precision, "cuda", ("float16", "bfloat16", "float32"))


def _open_checkpoint(backend: str, folder: Path, precision: str, device: str, able: Sequence[str]) -> Bundle:
    if not is_checkpoint(folder):
        raise BundleError(
            f'{folder}: the "{backend}" backend runs a diffusers checkpoint itself (a folder with model_index.json): '
            "name that folder, or use --backend cpu"
        )
    try:
        from engines.torch_ref import open_checkpoint, require_device
    except ImportError as error:
        raise EngineError(f'the "{backend}" backend needs torch and diffusers: {install_line("export")}') from error

    require_device(device)
    chosen = choose_precision(backend, precision, able)
    return open_checkpoint(folder).on(device, chosen).bundle(backend)


# a backend opens a folder in a precision ("auto": its fastest that keeps the scores), or refuses with EngineError
BACKENDS: dict[str, Callable[[Path, str], Bundle]] = {
    "tensorrt": _open_tensorrt,
    "cuda": _open_cuda,
    "openvino": _open_openvino,
    "cpu": _open_cpu,
    "torch": _open_torch,
    "torch-cuda": _open_torch_cuda,
}
AUTO: Sequence[str] = ("tensorrt", "cuda", "openvino", "cpu")  # what `auto` tries for a bundle, in this order


def open_bundle(folder: str | Path, backend: str = "auto", precision: str = "auto") -> Bundle:
    """Open a bundle with a backend in a precision, or refuse.

    Backend `auto` is the first of AUTO that truly runs the bundle's text encoder, and `torch` for a diffusers
    checkpoint. Precision `auto` is the backend's choice. Raises EngineError.

    The UNet is not tried: opening a large one takes seconds and gigabytes, also where only a scan_id is asked for, and
    a backend that cannot run it should say so, not give way unasked to one that takes hours instead of minutes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EngineError(f"{folder}: no such folder; needed a bundle (made by `overscan export`)")
    if precision not in ("auto", *PRECISIONS):
        raise EngineError(f"precision {precision!r} is unknown; there are auto, {', '.join(PRECISIONS)}")
    if backend == "auto":
        return BACKENDS["torch"](folder, precision) if is_checkpoint(folder) else _first_that_works(folder, precision)
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r} is unknown; there are auto, {', '.join(BACKENDS)}")
    return BACKENDS[backend](folder, precision)


def _first_that_works(folder: Path, precision: str) -> Bundle:
    errors: dict[str, EngineError] = {}
    for name in (name for name in AUTO if name in BACKENDS):
        try:
            bundle = prove(BACKENDS[name](folder, precision))
        except BundleError:  # no backend could run it
            raise
        except EngineError as error:
            errors[name] = error
        else:
            return replace(bundle, passed_over=tuple(f"{name}: {error}" for name, error in errors.items()))
    if len(errors) == 1:
        raise next(iter(errors.values()))
    reasons = "; ".join(f"{name}: {error}" for name, error in errors.items())
    raise EngineError(f"{folder}: no backend runs it here: {reasons}")


def prove(bundle: Bundle) -> Bundle:
    """The bundle, once a text encoder has run. Raises EngineError where none does or its output is not finite."""
    name = next((name for name, part in bundle.manifest.components.items() if IDS in part.inputs), "text_encoder")
    engine = bundle.engine(name)
    feeds = {  # a mask that hides everything would leave nothing to attend to
        key: np.full([1, *(size or 1 for size in spec.shape[1:])], key != IDS, spec.dtype)
        for key, spec in engine.inputs.items()
    }
    try:
        outputs = engine.run(feeds)
    except Exception as error:  # the runtimes' errors share no base class
        raise EngineError(f"its text encoder does not run ({error})") from error
    if not all(np.isfinite(array).all() for array in outputs.values()):
        raise EngineError("its text encoder's output is not finite")
    opened = {name: engine}
    return replace(bundle, _engine=lambda name: opened.pop(name, None) or bundle.engine(name))


def open_onnx(path: str | Path) -> Engine:
    """Open an ONNX file that belongs to no bundle, on the CPU. Raises EngineError."""
    from engines.ort import open_file

    path = Path(path)
    if not path.is_file():
        raise EngineError(f"{path}: no such file; needed a network in an ONNX file")
    return open_file(path)
