# ruff: noqa: N802 (the calls bear the names of CUDA's C interface)
"""The calls of TensorRT and cuda-python that the backend makes, as documented, carried out by ONNX Runtime in memory.

TensorRT needs a GPU even to be imported, so this stands in for it. It knows nothing but those calls: another name is an
AttributeError. It checks what a GPU would punish: shapes outside the profile, copies out of bounds, memory after free.
"""

import ctypes
import json
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime


class Errors(Enum):
    OK = 0
    NO_DRIVER = 35


class Cuda(ModuleType):
    """cuda.bindings.runtime: every call gives its error first."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, devices=1):
        super().__init__("cuda.bindings.runtime")
        self.devices, self.memory, self.copied = devices, {}, 0

    def cudaGetDeviceCount(self):
        return (Errors.OK, self.devices) if self.devices is not None else (Errors.NO_DRIVER, None)

    def cudaGetErrorString(self, error):
        return Errors.OK, b"CUDA driver version is insufficient for CUDA runtime version"

    def cudaGetDeviceProperties(self, device):
        return Errors.OK, SimpleNamespace(name=b"Stand-in", major=9, minor=0)

    def cudaMalloc(self, size):
        array = np.full(size, 0xAA, np.uint8)
        self.memory[array.ctypes.data] = array
        return Errors.OK, array.ctypes.data

    def cudaFree(self, address):
        del self.memory[address]
        return (Errors.OK,)

    def cudaStreamCreate(self):
        return Errors.OK, 7

    def cudaStreamDestroy(self, stream):
        return (Errors.OK,)

    def cudaStreamSynchronize(self, stream):
        return (Errors.OK,)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        device = to if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else source
        assert size <= len(self.memory[device])
        ctypes.memmove(to, source, size)
        self.copied += size
        return (Errors.OK,)


class Monitor:
    def __init__(self):
        self.ready = True


class Logger:
    ERROR = 1

    def __init__(self, level):
        pass


class Network:
    path = None


class Parser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse_from_file(self, path):
        if not Path(path).read_bytes():
            self.num_errors = 1
            return False
        self.network.path = path
        return True

    def get_error(self, index):
        return f"error {index}"


class Config:
    progress_monitor = None

    def __init__(self):
        self.flags, self.profiles = {"TF32"}, []

    def clear_flag(self, flag):
        self.flags.remove(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)


class Shapes(dict):
    def set_shape(self, name, least, best, largest):
        self[name] = least, best, largest


class Builder:
    built = 0

    def __init__(self, logger):
        pass

    def create_network(self, flags):
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Shapes()

    def build_serialized_network(self, network, config):
        assert not config.flags, "TF32 is on"
        monitor = config.progress_monitor
        assert monitor.ready
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Tactics", "Building", 3)
        if not all(monitor.step_complete("Tactics", step) for step in range(3)):
            return None
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building")
        Builder.built += 1
        return json.dumps({"path": network.path, "shapes": config.profiles[0]}).encode()


class Engine:
    def __init__(self, path, shapes):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.shapes = shapes
        self.tensors = {n.name: n.type for n in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name):
        return {"tensor(float)": "float32", "tensor(int64)": "int64"}[self.tensors[name]]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.addresses, self.given = engine, {}, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def set_input_shape(self, name, shape):
        least, _, largest = self.engine.shapes[name]
        self.given[name] = shape
        return all(a <= n <= b for a, n, b in zip(least, shape, largest, strict=True))

    def execute_async_v3(self, stream):
        feeds = {}
        for name, shape in self.given.items():
            dtype = np.dtype(self.engine.get_tensor_dtype(name))
            raw = ctypes.string_at(self.addresses[name], int(np.prod(shape)) * dtype.itemsize)
            feeds[name] = np.frombuffer(raw, dtype).reshape(shape)
        for node, array in zip(self.engine.session.get_outputs(), self.engine.session.run(None, feeds), strict=True):
            ctypes.memmove(self.addresses[node.name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return True


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        try:
            return Engine(**json.loads(plan))
        except ValueError:
            return None


def install(monkeypatch, devices=1, version="11.4.0"):
    """Put both where `import` finds them; returns (tensorrt, runtime)."""
    trt, cuda = ModuleType("tensorrt"), Cuda(devices)
    trt.__version__ = version
    trt.Logger, trt.Builder, trt.OnnxParser, trt.Runtime = Logger, Builder, Parser, Runtime
    trt.IProgressMonitor, trt.BuilderFlag, trt.nptype = Monitor, SimpleNamespace(TF32="TF32"), np.dtype
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    modules = {"tensorrt": trt, "cuda": ModuleType("cuda"), "cuda.bindings": bindings, "cuda.bindings.runtime": cuda}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Builder, "built", 0)
    return trt, cuda
