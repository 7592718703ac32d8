"""Export a diffusers checkpoint to a bundle of ONNX graphs that needs no torch to run."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle, read_manifest
from engines.families import DEFAULTS, Options
from engines.forms import UNCHANGED, Changes, assembled
from engines.interface import Arrays, EngineError
from engines.manifest import Component, Manifest, new_folder, sha256
from engines.memory import give_back
from engines.ort import OrtEngine
from engines.torch_ref import Checkpoint, TorchEngine, open_checkpoint

logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # "torchvision is missing"

INLINE_BYTES = 2**30  # above this the weights lie beside the graph; protobuf ends at 2 GB
BATCHES = (1, 3)  # graphs are traced at 2; more would need 18 GB at Stable Diffusion's size
# parameters, and numbers of one input or output of a sample (1,024 pixels a side have more), from where a batch of 3
# would need as much at Stable Diffusion XL's
LARGE, LARGE_ARRAY, LARGE_BATCHES = 2**31, 2**20, (1,)
# largest error of an output relative to its largest element
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


def export(
    source: Path,
    out: Path,
    dtype: str = "float32",
    latent_std: float = 1.0,
    check: Callable[[Bundle, Bundle], None] = lambda checkpoint, bundle: None,
    say: Callable[[str], None] = lambda line: None,
    options: Options = DEFAULTS,
    variant: str | None = None,
    changes: Changes = UNCHANGED,
) -> Manifest:
    """Write a bundle of `source` (a diffusers folder, a single file, or a hub id where a network is there) to `out`.

    Every component is loaded, exported and compared with torch at batch 1 and 3 (a large one at 1) by itself, so that
    no two are in memory at once; then `check(the checkpoint on torch, the bundle)` looks at the whole. `out`
    appears only when all has passed. Raises EngineError; a failed export leaves nothing behind.
    """
    if dtype not in TOLERANCE:
        raise EngineError(f"dtype {dtype!r}: needed {' or '.join(TOLERANCE)}")
    with new_folder(out) as partial, assembled(source, changes, variant, out) as folder:
        checkpoint = open_checkpoint(folder, latent_std, options, variant)
        made_of = replace(
            checkpoint.manifest, source={"checkpoint": source.resolve().name}, changes=changes.named or None
        )
        checkpoint = replace(checkpoint, manifest=made_of)
        _write(checkpoint, partial, dtype, say)
        manifest = read_manifest(partial)  # as a scan will
        components, tokenizers = manifest.components, checkpoint.tokenizers
        bundle = Bundle(partial, manifest, tokenizers, "cpu", dtype, lambda name: _opened(partial, components[name]))
        check(checkpoint.bundle("torch"), bundle)
    return manifest


def _write(checkpoint: Checkpoint, folder: Path, dtype: str, say: Callable[[str], None]) -> None:
    for name, text in checkpoint.tokenizers.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    components = {}
    for name, component in checkpoint.manifest.components.items():
        components[name] = replace(component, files=_export_component(name, checkpoint.on("cpu", dtype), folder))
        give_back()  # what torch traced refers to itself: left to be, a network would stay beside the next
        engine = checkpoint.engine(name)
        batches = LARGE_BATCHES if _is_large(engine) else BATCHES
        feeds = [_random_feeds(engine, batch) for batch in batches]
        expected = [engine.run(arrays) for arrays in feeds]
        del engine  # one network in memory
        give_back()
        error = _verify(name, feeds, expected, _opened(folder, components[name]), dtype)
        say(f"{name}: largest relative error {error:.1e} at batch {', '.join(map(str, batches))}")
    manifest = replace(
        checkpoint.manifest,
        precision=dtype,
        components=components,
        tokenizer={file: sha256(folder / file) for file in checkpoint.manifest.tokenizer},
        versions=dict(checkpoint.manifest.versions) | {name: version(name) for name in ("onnx", "onnxscript")},
    )
    manifest.write(folder)


def _opened(folder: Path, component: Component) -> OrtEngine:
    """In ONNX Runtime, sparing memory where the weights lie beside the graph."""
    return OrtEngine(folder, component, sparing=len(component.files) > 1)


def _is_large(engine: TorchEngine) -> bool:
    """By its parameters, or by the largest input or output of a sample."""
    arrays = [*engine.inputs.values(), *engine.outputs.values()]
    largest = max(math.prod(size or 1 for size in array.shape) for array in arrays)
    return largest > LARGE_ARRAY or sum(parameter.numel() for parameter in engine.module.parameters()) > LARGE


def _export_component(name: str, checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """Trace one module to ONNX with a dynamic batch; returns its files with their hashes, the graph first."""
    engine = checkpoint.engine(name)
    module = engine.module
    batch = torch.export.Dim("batch", min=1, max=4096)
    example = {key: torch.from_numpy(array) for key, array in _random_feeds(engine, 2).items()}
    size = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            input_names=list(engine.inputs),
            output_names=list(engine.outputs),
            dynamic_shapes=tuple({0: batch} for _ in example),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in list(program.model.graph.all_nodes()):
        node.metadata_props.clear()  # the exporter's stack traces: a tenth of a small model's file
        if node.op_type == "Squeeze" and _does_nothing(node):
            onnx_ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            node.graph.remove(node, safe=True)
    program.save(path, external_data=size > INLINE_BYTES)
    _empty(module, program.model.graph)
    return {file.name: sha256(file) for file in sorted(folder.glob(f"{name}.onnx*"))}


def _empty(module: torch.nn.Module, graph: onnx_ir.Graph) -> None:
    """Drop all weights: the exporter's rewriting rules keep the last graph that they saw, and that the weights."""
    for value in graph.initializers.values():
        value.const_value = None
    for parameter in module.parameters():
        parameter.data = torch.empty(0)


def _does_nothing(squeeze: Any) -> bool:
    """Whether the axes that a node is to take away are there to stay: torch lets them be, and ONNX refuses it."""
    if len(squeeze.inputs) < 2:  # all axes of 1
        return False
    shape, axes = squeeze.inputs[0].shape, onnx_ir.convenience.get_const_tensor(squeeze.inputs[1])
    sizes = [] if shape is None or axes is None else [shape[int(axis)] for axis in axes.numpy().reshape(-1)]
    return bool(sizes) and all(isinstance(size, int) and size != 1 for size in sizes)


def _random_feeds(engine: TorchEngine, batch: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    highest = min(1000, getattr(engine.module, "vocabulary", 1000))
    for key, spec in engine.inputs.items():
        shape = [batch, *(size for size in spec.shape if size is not None)]
        if key in ("input_ids", "timestep"):
            feeds[key] = rng.integers(0, highest, shape).astype(spec.dtype)
        elif spec.dtype == "int64":  # a mask: prompts of all lengths
            feeds[key] = (np.arange(shape[1]) < rng.integers(1, shape[1] + 1, (batch, 1))).astype(np.int64)
        else:
            feeds[key] = rng.standard_normal(shape, np.float32)
    return feeds


def _require_finite(name: str, array: NDArray[Any], what: str, remedy: str) -> None:
    if not np.isfinite(array).all():
        raise EngineError(f"{name}: {what} gives NaN or infinity for ordinary inputs: {remedy}; not exported")


def _verify(
    name: str,
    feeds: Sequence[Arrays],
    expected: Sequence[Arrays],
    candidate: OrtEngine,
    dtype: str,
) -> float:
    worst = 0.0
    for arrays, outputs in zip(feeds, expected, strict=True):
        found = candidate.run(arrays)
        for key, array in outputs.items():
            _require_finite(name, array, "torch in float32", "its weights are damaged: take another copy")
            _require_finite(name, found[key], f"the graph in {dtype}", "export it with --dtype float32")
            worst = max(worst, float(np.abs(array - found[key]).max() / (np.abs(array).max() or 1.0)))
    if not worst <= TOLERANCE[dtype]:
        raise EngineError(f"{name}: differs from torch by {worst:.1e}, allowed {TOLERANCE[dtype]:.0e}: not exported")
    return worst
