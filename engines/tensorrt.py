"""NVIDIA TensorRT, in the precision that the graphs were exported in: plans are built here, from the bundle's graphs.

A plan is code that runs with the user's rights, and fits one version of TensorRT and one kind of GPU. So it is never
read from a bundle, only from a folder of the user's own that nobody else can write, under a key of all that it depends
on. Written after the documentation of TensorRT 11 and cuda-python 13; docs/gpu.md says what has been run where.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.build_progress import BuildProgress
from engines.cache import making
from engines.installed import install_line
from engines.interface import Arrays, EngineError
from engines.manifest import Component, Manifest
from engines.plans import WAY_OUT, Gpu, Profile, plan_folder, plan_key, profile_for, write_plan

OLDEST = 11  # before it, a network ignores the precisions of its graph unless told not to


def require() -> Gpu:
    """TensorRT and the GPU that it would run on. Raises EngineError where either is missing."""
    trt, cudart = _libraries()
    version = str(trt.__version__)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < OLDEST:
        raise EngineError(f"TensorRT {version}, needed {OLDEST} or newer: {install_line('tensorrt')}")
    error, count = cudart.cudaGetDeviceCount()
    if error.value or not count:
        said = _words(cudart, error) if error.value else "no device"
        raise EngineError(f"CUDA finds no GPU ({said}): look at it with nvidia-smi, or use --backend cpu")
    (properties,) = _call(cudart.cudaGetDeviceProperties, 0)
    return Gpu(version, properties.name.decode(), f"{properties.major}.{properties.minor}")


class TensorRtEngine:
    """One component of a bundle on the GPU. A plan is read or built when a batch needs it: minutes for a large UNet.

    `report` hears of a build, a line now and then.
    """

    rebuilds = True

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        component: str,
        gpu: Gpu,
        report: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        found = manifest.components[component]
        self.inputs, self.outputs = found.inputs, found.outputs
        self.provider = f"TensorRT {gpu.tensorrt}, {gpu.name}, {manifest.precision}"
        self._graph = folder / next(iter(found.files))
        self._component, self._report = found, report
        self._facts = manifest, component, gpu
        self._plans = plan_folder()
        self._loaded: _Loaded | None = None

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch. Raises EngineError where no plan can be built for it."""
        batch = len(next(iter(feeds.values())))
        if self._loaded is None or batch > self._loaded.profile.max:
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = self._load(profile_for(batch))
        return self._loaded.run(feeds, batch)

    def _load(self, profile: Profile) -> "_Loaded":
        """The plan of this profile from the cache, else built, and then kept there."""
        path = self._plans / f"{plan_key(*self._facts, profile)}.plan"
        with making(path):  # every worker of a machine wants the same one, and a build takes minutes
            plan = path.read_bytes() if path.is_file() else None
            engine = None if plan is None else _deserialized(plan)
            if engine is None:  # none yet, or damaged
                plan = build(self._graph, self._component, profile, self._report)
                write_plan(path, plan)
                engine = _deserialized(plan)
        if engine is None:
            raise EngineError(f"{self._graph}: TensorRT cannot load the plan that it built: {WAY_OUT}")
        return _Loaded(engine, self._component, profile)


def build(graph: Path, component: Component, profile: Profile, report: Callable[[str], None]) -> bytes:
    """A plan of an ONNX file for the batches of a profile. Raises EngineError, or KeyboardInterrupt where stopped."""
    trt, _ = _libraries()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # TensorRT 11 takes precisions from the graph, and always the explicit batch
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        said = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"{graph}: TensorRT cannot read it ({said}): {WAY_OUT}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32: TF32 keeps 10 bits of the mantissa
    shapes = builder.create_optimization_profile()
    for name, spec in component.inputs.items():
        shapes.set_shape(name, *profile.shapes(spec.shape))
    config.add_optimization_profile(shapes)
    progress = BuildProgress(f"TensorRT builds {graph.stem} for batches to {profile.max}", report)
    config.progress_monitor = monitor = _monitor(trt, progress)  # which has to outlive the build
    plan = builder.build_serialized_network(network, config)
    del monitor
    if progress.stopped:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"{graph}: TensorRT built no plan, see its messages above: {WAY_OUT}")
    progress.done()
    return bytes(plan)


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base is known once TensorRT is imported
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.begin(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.end(phase_name)

    return Monitor()


def _deserialized(plan: bytes) -> Any:
    """The engine of a plan; None where TensorRT does not take it."""
    trt, _ = _libraries()
    return trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)


class _Loaded:
    """A plan ready to run: its context, its stream, and device memory for the largest batch of its profile."""

    def __init__(self, engine: Any, component: Component, profile: Profile):
        trt, self._cudart = _libraries()
        self.profile, self._component = profile, component
        self._engine, self._context = engine, engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"TensorRT has no memory for batches to {profile.max}: {WAY_OUT}")
        specs = {**component.inputs, **component.outputs}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            if name not in specs or found != specs[name].dtype:
                raise EngineError(
                    f"the plan has {name} of {found}, which the manifest does not: export the model again"
                )
        (self._stream,) = _call(self._cudart.cudaStreamCreate)
        self._memory: dict[str, int] = {}
        for name, spec in specs.items():
            size = int(np.prod(profile.shapes(spec.shape)[-1])) * np.dtype(spec.dtype).itemsize
            (address,) = _call(self._cudart.cudaMalloc, size)
            self._memory[name] = int(address)
            self._context.set_tensor_address(name, int(address))

    def run(self, feeds: Arrays, batch: int) -> dict[str, NDArray[Any]]:
        kind, component = self._cudart.cudaMemcpyKind, self._component
        held = {name: np.ascontiguousarray(feeds[name], spec.dtype) for name, spec in component.inputs.items()}
        for name, array in held.items():
            if not self._context.set_input_shape(name, array.shape):
                raise EngineError(f"TensorRT refuses {name} of shape {array.shape}: export the model again")
            self._copy(self._memory[name], array.ctypes.data, array.nbytes, kind.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT could not run a batch of {batch}: a smaller --batch-size, or {WAY_OUT}")
        results = {
            name: np.empty((batch, *spec.shape[1:]), spec.dtype)  # type: ignore[type-var]  # only the batch is None
            for name, spec in component.outputs.items()
        }
        for name, array in results.items():
            self._copy(array.ctypes.data, self._memory[name], array.nbytes, kind.cudaMemcpyDeviceToHost)
        _call(self._cudart.cudaStreamSynchronize, self._stream)
        return results

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        _call(self._cudart.cudaMemcpyAsync, to, source, size, kind, self._stream)

    def close(self) -> None:
        """Free the device's memory, which the next plan may need."""
        for address in self._memory.values():
            _call(self._cudart.cudaFree, address)
        self._memory.clear()
        _call(self._cudart.cudaStreamDestroy, self._stream)
        self._context = self._engine = None


def _libraries() -> tuple[Any, Any]:
    """TensorRT, and the CUDA runtime of cuda-python. Raises EngineError where one is missing."""
    try:
        import tensorrt
        from cuda.bindings import runtime
    except (ImportError, OSError) as error:  # OSError: a library that it loads
        raise EngineError(
            f'the "tensorrt" backend needs TensorRT and cuda-python ({error}): {install_line("tensorrt")}'
        ) from error
    return tensorrt, runtime


def _call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    """A call of the CUDA runtime: what it returns after its error code. Raises EngineError."""
    error, *results = function(*arguments)
    if error.value:
        _, runtime = _libraries()
        raise EngineError(f"{function.__name__}: {_words(runtime, error)}: a smaller --batch-size, or {WAY_OUT}")
    return tuple(results)


def _words(runtime: Any, error: Any) -> str:
    return str(runtime.cudaGetErrorString(error)[1].decode())
