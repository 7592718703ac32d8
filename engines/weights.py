"""The weights of a checkpoint's parts: which files they are read from, and whether they are the network's own."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.checkpoint import DIVERGED, check_finite, check_loaded
from engines.families import Described
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts, class_of

WEIGHTS = (".safetensors", ".bin")
TOO_LARGE = "the weights are too large for {}: export with --dtype float32 (a scan of the checkpoint: --precision)"
# diffusion_pytorch_model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, model-00001-of-00002.safetensors
NAMED = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[a-z]\w*))?(?:-\d+-of-\d+)?(?:\.safetensors|\.bin)"
)


def variant_of(folder: Path, asked: str | None) -> str | None:
    """Which of its files a part is read from: those of `asked`, else the plain ones, else those of its only variant.

    Raises EngineError where there are none, or several to choose from.
    """
    found = {match["variant"] for file in folder.iterdir() if (match := NAMED.fullmatch(file.name))}
    names = sorted(variant for variant in found if variant is not None)
    if asked in found:
        return asked
    if None in found:
        return None  # as the libraries do for a part that a variant was not saved of
    if not found:
        raise EngineError(f"{folder}: no weights (*.safetensors or *.bin): copy the whole checkpoint again")
    if asked is None and len(names) == 1:
        return names[0]
    raise EngineError(f"{folder}: weights of {', '.join(names)} alone; name one of them: --variant {names[0]}")


def load(parts: Parts, name: str, variant: str | None, precision: str) -> Any:
    """One network with its weights in a precision, every one of them from its file and finite. Raises EngineError.

    Files that are not safetensors are read as tensors alone, never unpickled.
    """
    kind = class_of(parts.classes[name])
    dtype = {"dtype" if hasattr(kind, "config_class") else "torch_dtype": getattr(torch, precision)}
    try:
        module, info = kind.from_pretrained(
            parts.folder / name,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            variant=variant,
            **dtype,
        )
    except Exception as error:  # the libraries' errors for missing and damaged files share no base class
        raise EngineError(f"{parts.folder}: cannot be loaded ({error}): copy the whole checkpoint again") from error
    check_loaded(parts.folder / name, parts.classes[name], info)
    if not getattr(kind, "_keep_in_fp32_modules", None):  # as T5's, whose sums overflow in float16
        module = module.to(getattr(torch, precision))
    module = module.eval().requires_grad_(False)
    remedy = DIVERGED if precision == "float32" else TOO_LARGE.format(precision)
    check_finite(str(parts.folder / name), module, remedy)
    return module


def tried(parts: Parts, described: Described) -> dict[str, dict[str, TensorSpec]]:
    """What each network gives, found by running all of them on shapes alone. Raises EngineError where one does not."""
    given: dict[str, dict[str, TensorSpec]] = {}
    for name, network in described.networks.items():
        try:
            with torch.inference_mode(), torch.device("meta"):
                module = network.wrap(parts.module(network.part))
                outputs = module(*(_blank(spec) for spec in network.inputs.values()))
        except Exception as error:  # torch's and the libraries' share no base class
            raise EngineError(
                f"{parts.folder}: its networks do not run on a text and a latent of {list(described.latent_shape)} "
                f"({name}: {error}): scan a model conditioned on text alone, or copy the whole checkpoint again"
            ) from error
        tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
        shapes = [TensorSpec("float32", (None, *tensor.shape[1:])) for tensor in tensors]
        given[name] = dict(zip(network.outputs, shapes, strict=True))
    latent = (None, *described.latent_shape)
    for name, specs in given.items():
        for key in ("output", "latent"):
            if key in specs and specs[key].shape != latent:
                raise EngineError(
                    f"{parts.folder}: of a latent {list(latent[1:])} the {name} makes {list(specs[key].shape[1:])}: "
                    "write a sample_size that the networks can halve as often as they do"
                )
    return given


def _blank(spec: TensorSpec) -> Tensor:
    return torch.zeros(2, *(size or 1 for size in spec.shape[1:]), dtype=getattr(torch, spec.dtype))
