"""The settings that change the numbers, and where settings are read from.

Batch size, backend and progress do not change the numbers: they are arguments. This module knows no command; the
command line tells it which keys there are.
"""

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from scanner.errors import ConfigError, ScannerError
from scanner.identity import identity

FILES = ("overscan.toml", "pyproject.toml")  # looked for in the working directory, in this order
SCREENED_OUT = "screened_out"  # status of a prompt that a first pass found ordinary: it has no score


@dataclass(frozen=True)
class ScanConfig:
    """What to compute for each prompt.

    `guidance_scale`: 1 = no guidance. `num_inference_steps`: the sampler's grid, of which only the first
    `first_steps` run. `seeds`: one starting noise each, the same for every prompt. `timesteps`: one or two that the
    network is told beside the starting noise, the noisier first; (): the sampler's first; None: what is usual for the
    model, which `Model.prepare` settles.

    >>> ScanConfig(seeds=(0, 1, 2), first_steps=2).passes
    9
    """

    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    first_steps: int = 1
    seeds: tuple[int, ...] = (0, 1)
    timesteps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ScannerError(f"seeds {self.seeds}: needed one or more different numbers from 0 up")
        if not 1 <= self.first_steps <= self.num_inference_steps:
            raise ScannerError(f"first_steps {self.first_steps}: needed 1 to {self.num_inference_steps}")
        told = self.told
        if len(told) > 2 or any(before <= after for before, after in pairwise(told)):
            raise ScannerError(f"timesteps {told}: needed one or two, the larger (the noisier) first")
        if not 1 <= self.guidance_scale < math.inf:
            raise ScannerError(f"guidance_scale {self.guidance_scale}: needed 1 (no guidance) or more, and finite")

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> "ScanConfig":
        """A configuration as JSON has it, with lists for tuples; what only a newer overscan knows is left out."""
        known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
        told = raw.get("timesteps", ())  # an older overscan had no choice
        return cls(**known | {"seeds": tuple(raw["seeds"]), "timesteps": None if told is None else tuple(told)})

    @property
    def told(self) -> tuple[int, ...]:
        """The timesteps that are named, the noisier first."""
        return self.timesteps or ()

    def settled(self, usual: tuple[int, ...]) -> "ScanConfig":
        """Itself with timesteps: those that are `usual` where none were asked for, and no step follows the first."""
        if self.timesteps is not None:
            return self
        return replace(self, timesteps=usual if self.first_steps == 1 else ())

    @property
    def passes(self) -> int:
        """UNet passes per prompt."""
        return unet_passes(len(self.seeds), self.first_steps) + len(self.seeds) * len(self.told[1:])

    def passes_with(self, base: bool) -> int:
        """UNet passes per prompt, with those of a base model, where there is one: one more for each seed."""
        return self.passes + (len(self.seeds) if base else 0)

    def scan_id(
        self,
        manifest_fingerprint: str,
        backend: str,
        precision: str,
        reference: str | None = None,
        base: str | None = None,
    ) -> str:
        """blake2b-128 of all that the scores depend on, so that scores of different engines never mix.

        `reference`: fingerprint of the reference captions, `base`: of the base model's manifest, where there are any.
        """
        what = asdict(self)
        if not self.timesteps:  # as before there was a choice
            del what["timesteps"]
        what |= {"manifest": manifest_fingerprint, "backend": backend, "precision": precision}
        if reference is not None:
            what["reference"] = reference
        if base is not None:
            what["base"] = base
        return identity(what)


@dataclass(frozen=True)
class Reference:
    """A file of ordinary captions, and the fingerprint of those that were in it."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Base:
    """Where the model lay that another was compared with, and the fingerprint of its manifest."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class MadeWith:
    """What a scan's scores were made with: what its scan_id is made of, and where the model lay."""

    model: str
    backend: str
    precision: str
    config: ScanConfig
    reference: Reference | None
    base: Base | None = None

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> "MadeWith":
        """From these keys of a run's record or a report's summary. Raises KeyError or TypeError."""
        reference, base = raw.get("reference"), raw.get("base")  # an older overscan did not note them
        return cls(
            model=raw["model"],
            backend=raw["backend"],
            precision=raw.get("precision", "float32"),  # an older overscan knew no other on its backends
            config=ScanConfig.of_json(raw["config"]),
            reference=None if reference is None else Reference(reference["path"], reference["fingerprint"]),
            base=None if base is None else Base(base["path"], base["fingerprint"]),
        )

    def scan_id(self, manifest_fingerprint: str) -> str:
        """The scan_id that a model would have made with these settings, unscreened: the scan's own, or another."""
        reference = None if self.reference is None else self.reference.fingerprint
        base = None if self.base is None else self.base.fingerprint
        return self.config.scan_id(manifest_fingerprint, self.backend, self.precision, reference, base)


def unet_passes(seeds: int, first_steps: int) -> int:
    """UNet passes per prompt: the first step's unconditional pass is shared by all prompts."""
    return seeds * (2 * first_steps - 1)


@dataclass(frozen=True)
class Screen:
    """Who gets all of a scan's passes: prompts among the top `share` by `score` after a first pass.

    The first pass is one seed and one step of `model`; None: of the scan's. `score`: None: the best of one seed.
    `precision`: of the first pass; None: the scan's, or for another `model` the backend's choice. `sample`: a share of
    all prompts, drawn at random, that get all passes whatever the first finds, so that a report can say what it loses.
    """

    share: float
    score: str | None = None
    model: str | Path | None = None
    precision: str | None = None
    sample: float = 0.0

    @property
    def own_engine(self) -> bool:
        """Whether the first pass runs on another model or in another precision than the scan."""
        return self.model is not None or self.precision is not None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ScannerError(f"screen {self.share:g}: needed a share of the prompts between 0 and 1, such as 0.02")
        if not 0 <= self.sample < 1:
            raise ScannerError(
                f"screen sample {self.sample:g}: needed a share of the prompts from 0 to 1, such as 0.02"
            )

    def first_pass(self, config: ScanConfig) -> ScanConfig:
        """The settings of the first pass: those of a plain scan of one seed, so that its rows serve such a scan too."""
        return replace(
            config, seeds=config.seeds[:1], first_steps=1, timesteps=config.timesteps and config.timesteps[:1]
        )


def find_file(folder: Path) -> Path | None:
    """The configuration file of a folder: overscan.toml, else a pyproject.toml with a [tool.overscan] table."""
    files = (folder / name for name in FILES)
    return next(
        (file for file in files if file.is_file() and (file.name == FILES[0] or "overscan" in _tools(file))), None
    )


def load(file: Path, known: Mapping[str, Collection[str]]) -> dict[str, dict[str, Any]]:
    """Settings by command. `known`: the keys of every command.

    A key outside the tables is for every command that knows it; a table named after a command is for that one, and
    stronger. Raises ConfigError, naming the key, for what no command knows.
    """
    table = _tools(file).get("overscan", {}) if file.name == FILES[1] else _parse(file)
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key in shared:
        if not any(key in keys for keys in known.values()):
            raise _unknown(file, key, {key for keys in known.values() for key in keys})
    for command in table.keys() - shared.keys():
        if command not in known:
            raise _unknown(file, f"[{command}]", known)
        if not table[command].keys() <= set(known[command]):
            key = min(table[command].keys() - set(known[command]))
            raise _unknown(file, f"{command}.{key}", known[command])
    return {
        command: {key: value for key, value in shared.items() if key in keys} | table.get(command, {})
        for command, keys in known.items()
    }


def _tools(file: Path) -> dict[str, Any]:
    tools: dict[str, Any] = _parse(file).get("tool", {})
    return tools


def _parse(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: no readable TOML ({error}): repair or remove it") from error


def _unknown(file: Path, key: str, known: Collection[str]) -> ConfigError:
    near = get_close_matches(key.rpartition(".")[2].strip("[]"), known, 1)
    meant = f", did you mean {near[0]}?" if near else ""
    return ConfigError(f"{file}: {key} is unknown{meant}; there are {', '.join(sorted(known))}")
