"""A bundle whose UNet computes in int8: static post-training quantisation by NNCF, run by OpenVINO.

Weights and activations of the large layers become 8 bits; what the activations range over is observed on feeds.
"""

import io
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engines.bundle import read_manifest
from engines.installed import install_line
from engines.interface import Arrays, BundleError, EngineError
from engines.manifest import Manifest, new_folder, sha256


def quantize(
    source: Path, out: Path, feeds: Sequence[Arrays], check: Callable[[Path], None] = lambda bundle: None
) -> Manifest:
    """Write a copy of the float32 bundle `source` to `out` with the UNet in int8, as OpenVINO IR (unet.xml, unet.bin).

    `feeds`: UNet inputs like those of a scan, batch 1. The same inputs and versions give the same bytes.
    `check(bundle)` looks at the whole; `out` appears only when it has passed. Raises EngineError; a failure leaves
    nothing behind.
    """
    manifest = read_manifest(source)
    if manifest.precision != "float32":
        raise BundleError(f"{source}: a bundle in {manifest.precision}; int8 is made of float32: export it so first")
    if "unet" not in manifest.components:
        raise BundleError(f"{source}: int8 is made of a UNet, and this model has none: export it in float16")
    nncf, openvino = _libraries()
    unet = manifest.components["unet"]
    with new_folder(out) as folder:
        model = openvino.Core().read_model(source / next(iter(unet.files)))
        model = _quantized(nncf, model, feeds)
        for number, op in enumerate(model.get_ordered_ops()):
            if op.get_type_name() not in ("Parameter", "Result"):  # others are numbered by all that the process made
                op.set_friendly_name(f"{op.get_type_name()}_{number}")
        openvino.save_model(model, folder / "unet.xml", compress_to_fp16=False)
        del model
        kept = {name: component for name, component in manifest.components.items() if name != "unet"}
        for file in [*manifest.tokenizer, *(file for component in kept.values() for file in component.files)]:
            shutil.copyfile(source / file, folder / file)
        files = {name: sha256(folder / name) for name in ("unet.xml", "unet.bin")}
        manifest = replace(
            manifest,
            precision="int8",
            components=dict(manifest.components) | {"unet": replace(unet, files=files)},
            versions=dict(manifest.versions) | {name: version(name) for name in ("nncf", "openvino")},
        )
        manifest.write(folder)
        check(folder)
    return manifest


def _quantized(nncf: Any, model: Any, feeds: Sequence[Arrays]) -> Any:
    """The model with 8-bit layers, but for what the scores feel most.

    That is the first and the last convolution, which are cheap, and attention's own products, of which NNCF knows some
    forms: quantised, they lose what a memorized caption's prediction differs by.
    """
    ops = model.get_ordered_ops()
    convolutions = [op.get_friendly_name() for op in ops if op.get_type_name() == "Convolution"]
    attention = [op.get_friendly_name() for op in ops if op.get_type_name() == "MatMul" and not _has_weights(op)]
    with redirect_stdout(io.StringIO()):  # a progress bar
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=[convolutions[0], convolutions[-1], *attention]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # SmoothQuant ranks ordinary captions a little better and memorized ones worse; biases change nothing
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
                disable_bias_correction=True,
            ),
        )


def _has_weights(op: Any) -> bool:
    """Whether a factor is a constant, reshaped or not."""
    factors = [value.get_node() for value in op.input_values()]
    while factors:
        factor = factors.pop()
        if factor.get_type_name() == "Constant":
            return True
        if factor.get_type_name() in ("Convert", "Reshape", "Transpose"):
            factors.append(factor.input_value(0).get_node())
    return False


def _libraries() -> tuple[Any, Any]:
    """NNCF, which is silent and calls nobody, and OpenVINO. Raises EngineError where one is missing."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use over the network
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise EngineError(f"{error}: int8 needs NNCF and OpenVINO: {install_line('int8')}") from error
    nncf.set_log_level(logging.ERROR)
    return nncf, openvino
