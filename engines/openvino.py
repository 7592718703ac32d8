"""OpenVINO on the CPU: bfloat16 where the processor has it, float32 elsewhere or where asked for."""

import hashlib
import os
from collections.abc import Container
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cache import making, own_folder
from engines.cores import usable_cores
from engines.installed import install_line
from engines.interface import Arrays, EngineError
from engines.manifest import Component
from engines.memory import give_back

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # our name of a precision: OpenVINO's


def precisions() -> tuple[str, ...]:
    """What this processor computes in, fastest first. Raises EngineError where OpenVINO is not installed."""
    able = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bfloat16", "float32") if "BF16" in able else ("float32",)


def compiled_folder(fingerprint: str, precision: str) -> Path | None:
    """$XDG_CACHE_HOME/overscan/compiled/KEY, for its user alone; None where it cannot be: every start compiles then.

    OpenVINO does not ask for the precision of a compiled model before it reads one back, and computes garbage from
    another's (2026.4, tried), so the key holds all that a compiled model depends on.
    """
    core = _openvino().Core()
    processor = [str(core.get_property("CPU", name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    key = [fingerprint, precision, _openvino().__version__, *processor, str(usable_cores())]
    try:
        folder = own_folder("compiled") / hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


class OpenVinoEngine:
    """One ONNX file, or one IR with int8 layers, compiled for the CPU; a run uses all cores that the process may use.

    `cache`: folder of compiled models, as of `compiled_folder`.
    """

    rebuilds = False

    def __init__(self, folder: Path, component: Component, precision: str, cache: Path | None):
        openvino = _openvino()
        path = folder / next(iter(component.files))
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
            "INFERENCE_NUM_THREADS": usable_cores(),
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)

        def compiled() -> Any:
            return openvino.Core().compile_model(str(path), "CPU", settings)

        try:
            with nullcontext() if cache is None else making(cache / path.name):
                self._model = compiled()
            if cache is not None and not self._model.get_property("LOADED_FROM_CACHE"):
                del self._model  # read back, its float32 weights are pages of a file and not memory: half of it
                give_back()
                self._model = compiled()
        except Exception as error:  # OpenVINO raises RuntimeError for all and any
            raise EngineError(f"{path}: OpenVINO cannot load it ({error}): export the model again") from error
        self.inputs, self.outputs = component.inputs, component.outputs
        takes = [_name(port, component.inputs) for port in self._model.inputs]
        gives = [_name(port, component.outputs) for port in self._model.outputs]
        component.check_names(path, takes, gives)
        found = str(self._model.get_property("INFERENCE_PRECISION_HINT").to_string())
        if found != HINTS[precision]:
            raise EngineError(f"OpenVINO computes in {found}, {HINTS[precision]} was asked")
        computes = precision
        if path.suffix == ".xml":
            self._require_int8(path)
            computes = f"int8, the rest {precision}"
        self.provider = f"OpenVINO {self._model.get_property('EXECUTION_DEVICES')[0]} {computes}"

    def _require_int8(self, path: Path) -> None:
        """Raise EngineError where the compiled model runs no layer in 8 bits."""
        ran = {op.get_rt_info()["runtimePrecision"].astype(str) for op in self._model.get_runtime_model().get_ops()}
        if not ran & {"i8", "u8"}:
            raise EngineError(f"{path}: OpenVINO runs it in {', '.join(sorted(ran))}, needed int8: quantise it again")

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        results = self._model({name: np.ascontiguousarray(array) for name, array in feeds.items()})
        # copied: the next run would write over a view
        return {name: np.array(results[name], self.outputs[name].dtype) for name in self.outputs}


def _name(port: Any, said: Container[str]) -> str:
    """The name that the manifest has for a port, which bears others too where the graph does nothing to it."""
    return next((str(name) for name in port.names if name in said), str(port.any_name))


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f'the "openvino" backend needs OpenVINO: {install_line("openvino")}') from error
    return openvino
