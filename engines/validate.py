"""Whether a manifest that its fingerprint proves intact can be true: types, sizes and numbers, before their first use.

A fingerprint says that nobody changed a manifest by accident, not that what it says is sense. What a family, a curve
or a spacing is called is not known here: those names are the scanner's.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from engines.interface import BundleError, EngineError, TensorSpec
from engines.manifest import Component, Manifest

PRECISIONS = ("float32", "float16", "bfloat16", "int8")  # what weights may be stored in
IDS = "input_ids"  # what a text encoder takes: token ids
DTYPES = {IDS: ("int64",), "attention_mask": ("int64",), "timestep": ("int64", "float32")}  # others are float32
AXES = {  # of arrays that mean the same in every network: letters are sizes that must agree
    IDS: "L",
    "attention_mask": "L",
    "encoder_hidden_states": "LD",
    "timestep": "",
    "sample": "CHW",
    "output": "CHW",
    "latent": "CHW",
    "image": "3hw",
}
IMAGES = {"vae_encoder": (["image"], ["latent"]), "vae_decoder": (["latent"], ["image"])}  # every family's
ALIKE = "CHW3hw"  # the same size in all networks; others in one
LARGEST = {"C": 256, "H": 4096, "W": 4096, "L": 4096, "D": 65536, "h": 65536, "w": 65536, "3": 3}
LONGEST_TRAINING = 100_000  # timesteps
GRID = {"timesteps", "signal_rate", "noise_rate", "initial_noise_scale"}
LEAST_TOLD = {"flow": -1, "edm": -1000}  # whose networks are told floats: sigma times 1000, log(sigma) / 4
RATE_ERROR = 1e-3  # of signal_rate^2 + noise_rate^2 = 1; of flow, the rates themselves


def check_manifest(manifest: Manifest, path: Path) -> None:
    """Raise BundleError for the first thing in it that cannot be."""
    try:
        _texts(manifest)
        _latents(manifest)
        _schedule(manifest.schedule)
        _networks(manifest)
        _grids(manifest)
        _require(manifest.fixed is None or _plain(manifest.fixed), f"fixed {manifest.fixed!r}", "numbers and names")
    except _ImpossibleError as error:
        raise BundleError(f"{path}: {error}: export the model again") from error


def check_schedule(schedule: object, path: Path, remedy: str) -> None:
    """Raise EngineError for numbers that make no schedule."""
    try:
        _schedule(schedule)
    except _ImpossibleError as error:
        raise EngineError(f"{path}: {error}: {remedy}") from error


class _ImpossibleError(ValueError):
    """What was found, and what was needed."""


def _require(true: bool, found: str, needed: str) -> None:
    if not true:
        raise _ImpossibleError(f"{found if len(found) < 200 else found[:200] + '...'}; needed {needed}")


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _real(value: object, above: float, most: float) -> bool:
    """A finite number in (above, most]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and above < value <= most  # type: ignore[operator]


def _texts(manifest: Manifest) -> None:
    for name in ("family", "prediction_type"):
        value = getattr(manifest, name)
        _require(isinstance(value, str), f"{name} {value!r}", "a name")
    _require(manifest.precision in PRECISIONS, f"precision {manifest.precision!r}", " or ".join(PRECISIONS))
    tables = {"tokenizer": manifest.tokenizer, "source": manifest.source, "versions": manifest.versions}
    tables |= {} if manifest.changes is None else {"changes": manifest.changes}
    tables |= {f"files of {name}": component.files for name, component in manifest.components.items()}
    for name, table in tables.items():
        of_texts = isinstance(table, Mapping) and all(isinstance(text, str) for text in [*table, *table.values()])
        _require(of_texts, f"{name} {table!r}", "names and texts")
        _require(bool(table) or name in ("source", "versions"), f"{name}: none", "a file and its hash")


def _plain(fixed: object) -> bool:
    """Whether it holds numbers, lists of numbers and names alone."""
    if not isinstance(fixed, Mapping):
        return False
    flat = [item for value in fixed.values() for item in (value if isinstance(value, list | tuple) else [value])]
    return all(isinstance(item, str | bool) or _real(item, -1e9, 1e9) for item in flat)


def _latents(manifest: Manifest) -> None:
    shape = manifest.latent_shape
    sizes = len(shape) == 3 and all(_whole(n, 1, LARGEST[axis]) for n, axis in zip(shape, "CHW", strict=True))
    _require(sizes, f"latent_shape {list(shape)}", "channels, height and width")
    _require(_real(manifest.latent_std, 0, 1e3), f"latent_std {manifest.latent_std!r}", "a number above 0, about 1")


def _schedule(schedule: object) -> None:
    """Numbers alone; what is missing, and a name that nobody knows, is told by who needs it."""
    if not isinstance(schedule, Mapping):
        raise _ImpossibleError(f"schedule {schedule!r}; needed names and values")
    for name in ("curve", "timestep_spacing"):
        value = schedule.get(name, "")
        _require(isinstance(value, str), f"{name} {value!r}", "a name")
    for name in ("beta_start", "beta_end"):
        value = schedule.get(name, 0.5)
        _require(_real(value, 0, 0.999), f"{name} {value!r}", "a number above 0 and below 1")
    ends = schedule.get("beta_start", 0), schedule.get("beta_end", 1)
    _require(ends[0] <= ends[1], f"beta_start {ends[0]} and beta_end {ends[1]}", "an end not below the start")
    total, offset = schedule.get("num_train_timesteps", 1000), schedule.get("steps_offset", 0)
    _require(_whole(total, 2, LONGEST_TRAINING), f"num_train_timesteps {total!r}", f"2 to {LONGEST_TRAINING}")
    _require(_whole(offset, 0, total - 1), f"steps_offset {offset!r}", f"0 to {total - 1}")
    _require(_real(schedule.get("shift", 1.0), 0, 1e3), f"shift {schedule.get('shift')!r}", "a number above 0")
    clean = schedule.get("set_alpha_to_one", True)
    _require(isinstance(clean, bool), f"set_alpha_to_one {clean!r}", "true or false")


def _networks(manifest: Manifest) -> None:
    """That every array has the type and the sizes that its name and the other networks ask for."""
    sizes: dict[str, object] = {**dict(zip("CHW", manifest.latent_shape, strict=True)), "3": 3}
    given = {name: spec for component in manifest.components.values() for name, spec in component.outputs.items()}
    for name, component in manifest.components.items():
        if name in IMAGES:
            found = [list(component.inputs), list(component.outputs)]
            _require(found == list(IMAGES[name]), f"{name} takes and gives {found}", f"{list(IMAGES[name])}")
        own = {letter: size for letter, size in sizes.items() if letter in ALIKE}
        for key, spec in [*component.inputs.items(), *component.outputs.items()]:
            _array(f"{name}'s {key}", key, spec, AXES.get(key), own)
        sizes |= {letter: size for letter, size in own.items() if letter in ALIKE}
        for key, spec in component.inputs.items():
            if key in given:
                _agree(f"{name}'s {key}", spec, given[key])


def _array(what: str, key: str, spec: TensorSpec, axes: str | None, sizes: dict[str, object]) -> None:
    dtypes = DTYPES.get(key, ("float32",))
    _require(spec.dtype in dtypes, f"{what} is {spec.dtype!r}", " or ".join(dtypes))
    letters = "D" * len(spec.shape[1:]) if axes is None else axes
    batch = len(spec.shape) == 1 + len(letters) and spec.shape[0] is None
    _require(batch, f"{what} has shape {list(spec.shape)}", f"null and {len(letters)} sizes")
    for axis, size in zip(letters, spec.shape[1:], strict=True):
        _require(_whole(size, 1, LARGEST[axis]), f"{what} has shape {list(spec.shape)}", "sizes of a network")
        agreed = size if axes is None else sizes.setdefault(axis, size)
        _require(agreed == size, f"{what} has shape {list(spec.shape)}", f"{agreed} where it has {size}, as elsewhere")


def _agree(what: str, spec: TensorSpec, given: TensorSpec) -> None:
    """That an input has the shape of the output of the same name."""
    for size, agreed in zip(spec.shape, given.shape, strict=False):
        _require(agreed == size, f"{what} has shape {list(spec.shape)}", f"{agreed} where it has {size}, as elsewhere")
    _require(len(spec.shape) == len(given.shape), f"{what} has shape {list(spec.shape)}", f"{list(given.shape)}")


def _grids(manifest: Manifest) -> None:
    grids: object = manifest.grids
    if grids is None:
        return
    if not isinstance(grids, Mapping) or not grids:
        raise _ImpossibleError(f"grids {str(grids)[:100]}; needed one by number of steps, or none said")
    for steps, grid in grids.items():
        _grid(steps, grid, manifest)


def _grid(steps: str, grid: object, manifest: Manifest) -> None:
    """A sampler's grid: see `Manifest.grids`."""
    if not isinstance(grid, Mapping) or set(grid) != GRID or not steps.isdecimal():
        raise _ImpossibleError(f"grid {steps!r}; needed a number of steps, with {', '.join(sorted(GRID))}")
    total = manifest.schedule.get("num_train_timesteps", 1000)
    least, last = LEAST_TOLD.get(manifest.prediction_type, -1), total - (manifest.prediction_type not in LEAST_TOLD)
    told, signal, noise = (grid[name] for name in ("timesteps", "signal_rate", "noise_rate"))
    for name, values, above, most in (
        ("timesteps", told, least, last),
        ("signal rates", signal, -1e-9, 1),
        ("noise rates", noise, 0, 1),
    ):
        fits = isinstance(values, list | tuple) and 0 < len(values) <= int(steps) and len(values) == len(told)
        numbers = fits and all(_real(value, above, most) for value in values)
        _require(numbers, f"{name} of grid {steps}: {values!r}", f"one for each step, up to {most}")
    scale = grid["initial_noise_scale"]
    _require(_real(scale, 0.5, 1.1), f"initial_noise_scale {scale!r} of grid {steps}", "a number near 1")
    _require(
        all(a >= b for a, b in pairwise(told)), f"timesteps of grid {steps}: {told!r}", "none after an earlier one"
    )
    _require(all(a > b for a, b in pairwise(noise)), f"noise rates of grid {steps}", "less noise at each step")
    power, said = (1, "rates") if manifest.prediction_type == "flow" else (2, "squares")
    whole = np.power(signal, power) + np.power(noise, power)
    _require(bool((np.abs(whole - 1) < RATE_ERROR).all()), f"rates of grid {steps}", f"{said} that add up to 1")
    for component in manifest.components.values():
        if "timestep" in component.inputs:
            fits = component.inputs["timestep"].dtype == "float32" or all(float(value).is_integer() for value in told)
            _require(fits, f"timesteps of grid {steps} for a network that is told int64", "whole numbers")


def encoder_of(tokenizer: str) -> str:
    """The component that a tokenizer's file is for: of tokenizer_2.json text_encoder_2."""
    return f"text_encoder{Path(tokenizer).stem.removeprefix('tokenizer')}"


def check_tokenizer(path: Path, encoder: Component | None, embeds: Mapping[str, int]) -> None:
    """Raise BundleError where the tokenizer would give its text encoder what that cannot take.

    `embeds`: by input, how many token ids the text encoder has vectors for, where known.
    """
    from tokenizers import Tokenizer

    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # what the tokenizers library raises has no class of its own
        raise BundleError(f"the bundle's tokenizer cannot be read ({error}): export the model again") from error
    if encoder is None or IDS not in encoder.inputs:
        return
    length, embedded = encoder.inputs[IDS].shape[1], embeds.get(IDS)
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    found = f"pads to {padding.get('length')} and cuts at {truncation.get('max_length')} tokens"
    try:
        exact = padding.get("length") == truncation.get("max_length") == length
        _require(exact and not padding.get("pad_to_multiple_of"), found, f"{length} and {length}")
        _require(truncation.get("stride") == 0, f"overlaps parts by {truncation.get('stride')}", "0")
        largest = max([padding["pad_id"], *tokenizer.get_vocab(True).values(), *_special_ids(json.loads(text))])
        if embedded is not None:
            _require(largest < embedded, f"gives token ids up to {largest}", f"below {embedded}, the text encoder's")
        given = len(tokenizer.encode("").ids)
        _require(given == length, f"gives {given} tokens for the empty prompt", str(length))
    except _ImpossibleError as error:
        raise BundleError(f"{path}: {error}: export the model again") from error


def _special_ids(made: Mapping[str, Any]) -> Iterable[int]:
    """What the post-processor puts around a prompt."""
    processor = made.get("post_processor") or {}
    for part in [processor, *processor.get("processors", [])]:
        yield from (part[name][1] for name in ("sep", "cls") if name in part)
        for special in part.get("special_tokens", {}).values():
            yield from special["ids"]
