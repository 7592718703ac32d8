"""ONNX Runtime on an NVIDIA GPU, in the precision that the graphs were exported in.

Inputs and outputs live on the device, once per batch size, and the first runs of a batch size are captured as a CUDA
graph that later ones replay. Written after ONNX Runtime's documentation; docs/gpu.md says what has been run where.
"""

import ctypes
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.installed import install_line
from engines.interface import Arrays, EngineError
from engines.manifest import Component
from engines.ort import open_session

PROVIDER = "CUDAExecutionProvider"
DEVICE = "cuda"
SETTINGS = {
    "device_id": "0",  # CUDA_VISIBLE_DEVICES says which one that is
    "enable_cuda_graph": "1",
    "use_tf32": "0",  # float32 means float32: TF32 keeps 10 bits of the mantissa
    "cudnn_conv_algo_search": "HEURISTIC",  # timing the algorithms would choose others, and round otherwise, each night
}
ENTRIES = {"session.record_ep_graph_assignment_info": "1"}
GRAPHS = 6  # batch sizes that are captured, a trial's among them; each holds device memory of its own
UNCAPTURED = "-1"
# what ONNX Runtime computes on the CPU of a graph with a dynamic batch: sizes, a few integers each
SIZES = {
    "Shape", "Size", "Gather", "Concat", "Unsqueeze", "Squeeze", "Slice", "Cast", "Add", "Sub", "Mul", "Div", "Mod",
    "Range", "Equal", "Where", "ConstantOfShape", "Constant", "Identity", "Min", "Max", "ReduceProd",
}  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """The device's arrays of one batch size, bound to the session, and the run options that name their CUDA graph."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any
    options: Any


class CudaEngine:
    """One ONNX file on the GPU. Raises EngineError where any of its computation would run elsewhere."""

    rebuilds = False

    def __init__(self, folder: Path, component: Component):
        require_cuda()
        try:
            with _quiet():
                self._session = open_session(folder, component, PROVIDER, SETTINGS, ENTRIES)
        except EngineError as error:
            raise EngineError(f"{error}: {_why()}, or use --backend cpu") from error
        if elsewhere := sorted(_elsewhere(self._session) - SIZES):
            raise EngineError(
                f"{next(iter(component.files))}: ONNX Runtime would run {', '.join(elsewhere)} on the CPU: use "
                "--backend torch-cuda or cpu, or another version of onnxruntime-gpu"
            )
        self.inputs, self.outputs = component.inputs, component.outputs
        self.provider = PROVIDER
        self._bound: dict[int, Bound] = {}

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        batch = len(next(iter(feeds.values())))
        if batch not in self._bound:
            self._bound[batch] = self._bind(batch)
            with _silent():  # cuDNN's frontend calls every plan that it passes over an error
                return self._run(self._bound[batch], feeds)
        return self._run(self._bound[batch], feeds)

    def _run(self, bound: Bound, feeds: Arrays) -> dict[str, NDArray[Any]]:
        for name, spec in self.inputs.items():
            bound.inputs[name].update_inplace(np.ascontiguousarray(feeds[name], spec.dtype))
        bound.binding.synchronize_inputs()  # the session has a stream of its own
        self._session.run_with_iobinding(bound.binding, bound.options)
        bound.binding.synchronize_outputs()
        return {name: array.numpy() for name, array in bound.outputs.items()}

    def _bind(self, batch: int) -> Bound:
        import onnxruntime

        def allocated(specs: Any) -> dict[str, Any]:
            return {
                name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    [batch, *spec.shape[1:]], np.dtype(spec.dtype).type, DEVICE, 0
                )
                for name, spec in specs.items()
            }

        options = onnxruntime.RunOptions()
        graph = str(len(self._bound) + 1) if len(self._bound) < GRAPHS else UNCAPTURED  # 0 is ONNX Runtime's own
        options.add_run_config_entry("gpu_graph_id", graph)
        bound = Bound(allocated(self.inputs), allocated(self.outputs), self._session.io_binding(), options)
        for name, array in bound.inputs.items():
            bound.binding.bind_ortvalue_input(name, array)
        for name, array in bound.outputs.items():
            bound.binding.bind_ortvalue_output(name, array)
        return bound


def require_cuda() -> None:
    """Raise EngineError where this ONNX Runtime was built without CUDA; says nothing of libraries or of a GPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f'the "cuda" backend needs ONNX Runtime for CUDA: {install_line("gpu")}') from error
    if PROVIDER not in onnxruntime.get_available_providers():
        raise EngineError(
            f"this ONNX Runtime ({onnxruntime.__version__}) was built without CUDA: pip uninstall onnxruntime, then "
            f"{install_line('gpu')} (the two packages own one folder, so never both)"
        )


def _elsewhere(session: Any) -> set[str]:
    """Operators that the session runs on another provider than CUDA."""
    parts = session.get_provider_graph_assignment_info()
    return {str(node.op_type) for part in parts if part.ep_name != PROVIDER for node in part.get_nodes()}


@contextmanager
def _quiet() -> Iterator[None]:
    """CUDA's libraries loaded, and ONNX Runtime silent: `_why` says better why a provider fails."""
    import onnxruntime

    with _silent():
        with redirect_stdout(io.StringIO()):  # it prints what it misses
            onnxruntime.preload_dlls()  # those that pip installed lie where the loader does not look
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """No line of ONNX Runtime's log; what it raises is raised."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def _why() -> str:
    """What to do, after what the loader says of ONNX Runtime's library for CUDA."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f"{error}: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return "its libraries load, so look for the GPU and its driver with nvidia-smi"
