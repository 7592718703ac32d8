"""ONNX Runtime: a session that runs where it was asked to or is refused, and the engine of the CPU."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.cores import usable_cores
from engines.installed import install_line
from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component

PROVIDER = "CPUExecutionProvider"


class OrtEngine:
    """One ONNX file in an ONNX Runtime session, or in one that is open; uses all cores that the process may use.

    `sparing` as `open_session`'s.
    """

    rebuilds = False

    def __init__(self, folder: Path, component: Component, session: Any = None, sparing: bool = False):
        self._session = session or open_session(folder, component, PROVIDER, sparing=sparing)
        self.inputs, self.outputs = component.inputs, component.outputs
        self.provider = PROVIDER

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def open_session(
    folder: Path,
    component: Component,
    provider: str,
    settings: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
    sparing: bool = False,
) -> Any:
    """A session of one ONNX file on `provider`, with its `settings` and the session's configuration `entries`.

    `sparing` runs the graph as it is written, each node when another needs it, and slower: the optimizer keeps float32
    copies of all float16 weights on a CPU, and the arena what the largest operation took (Stable Diffusion XL's UNet:
    14.6 GiB, sparing 2.0 and the file's pages).

    Raises EngineError where the file cannot be loaded, takes or gives other names than the manifest says, or where
    ONNX Runtime would run it elsewhere: asked for a provider whose libraries are missing it says so in its log, and
    goes on with the CPU.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f'the "cpu" backend needs ONNX Runtime: {install_line("cpu")}') from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if usable_cores() < (os.cpu_count() or 1):
        # by default a thread for each core of the machine, bound to it, whatever the process may use
        options.intra_op_num_threads = usable_cores()
    if sparing:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # else all weights are cast first
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    path = folder / next(iter(component.files))
    asked = [(provider, dict(settings or {}))]
    try:
        with warnings.catch_warnings(action="ignore"):  # of providers that it was not built with: refused below
            session = onnxruntime.InferenceSession(str(path), options, providers=asked, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise EngineError(f"{path}: ONNX Runtime cannot load it ({error}): export the model again") from error
    if (found := session.get_providers()[0]) != provider:
        raise EngineError(f"ONNX Runtime gave {found}, {provider} was asked")
    takes, gives = ([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
    component.check_names(path, takes, gives)
    return session


def open_file(path: Path) -> OrtEngine:
    """Open an ONNX file that is no part of a bundle, float32 in and out; its first axes are the batch.

    Raises EngineError.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"an ONNX file needs ONNX Runtime: {install_line('cpu')}") from error
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
    return OrtEngine(path.parent, Component({path.name: ""}, inputs, outputs), session)
