"""ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component

PROVIDER = "CPUExecutionProvider"


class OrtEngine:
    """One ONNX file in an ONNX Runtime session; uses all cores that the process may use."""

    def __init__(self, folder: Path, component: Component):
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError('the "cpu" backend needs ONNX Runtime: pip install "overscan[cpu]"') from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = folder / next(iter(component.files))
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise EngineError(f"{path}: ONNX Runtime cannot load it ({error}): export the model again") from error
        self.inputs, self.outputs = component.inputs, component.outputs
        self.provider = self._session.get_providers()[0]
        if self.provider != PROVIDER:
            raise EngineError(f"ONNX Runtime gave {self.provider}, {PROVIDER} was asked")
        for kind, items, needed in (
            ("takes", self._session.get_inputs(), self.inputs),
            ("gives", self._session.get_outputs(), self.outputs),
        ):
            if (names := {item.name for item in items}) != set(needed):
                found, wanted = ", ".join(sorted(names)), ", ".join(sorted(needed))
                raise EngineError(f"{path}: the graph {kind} {found}, needed {wanted}: export the model again")

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def read_component(path: Path) -> Component:
    """What an ONNX file that is no part of a bundle takes and gives; its first axes are the batch. Raises EngineError.

    Only float32 files are read so.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError('an ONNX file needs ONNX Runtime: pip install "overscan[cpu]"') from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=[PROVIDER])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise EngineError(f"{path}: ONNX Runtime cannot load it ({error}): name a readable ONNX file") from error
    nodes = (*session.get_inputs(), *session.get_outputs())
    if other := sorted({node.type for node in nodes} - {"tensor(float)"}):
        raise EngineError(f"{path}: works on {', '.join(other)}; needed float32 in and out: export it so")
    inputs, outputs = (
        {node.name: TensorSpec("float32", (None, *(n if isinstance(n, int) else None for n in node.shape[1:])))
         for node in side}
        for side in (session.get_inputs(), session.get_outputs())
    )  # fmt: skip
    return Component({path.name: ""}, inputs, outputs)
