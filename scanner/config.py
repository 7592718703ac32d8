"""The settings that change the numbers. Batch size, backend and progress do not: they are arguments."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from scanner.errors import ScannerError
from scanner.identity import identity

PRIOR_NOISES = 64  # of a model's prior, at most: docs/scores.md
SCREENED_OUT = "screened_out"  # status of a prompt that a first pass found ordinary: it has no score


@dataclass(frozen=True)
class ScanConfig:
    """What to compute for each prompt.

    `guidance_scale`: 1 = no guidance. `num_inference_steps`: the sampler's grid, of which only the first
    `first_steps` run. `seeds`: one starting noise each, the same for every prompt. `timesteps`: one or two that the
    network is told beside the starting noise, the noisier first; (): the sampler's first. `prior_noises`: how many the
    model's prior is made of, a UNet pass each. None of either: what is usual for the model, which `Model.prepare`
    settles.

    >>> ScanConfig(seeds=(0, 1, 2), first_steps=2).passes
    9
    """

    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    first_steps: int = 1
    seeds: tuple[int, ...] = (0, 1)
    timesteps: tuple[int, ...] | None = None
    prior_noises: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ScannerError(f"seeds {self.seeds}: needed one or more different numbers from 0 up")
        if not 1 <= self.first_steps <= self.num_inference_steps:
            raise ScannerError(f"first_steps {self.first_steps}: needed 1 to {self.num_inference_steps}")
        told = self.told
        if len(told) > 2 or any(before <= after for before, after in pairwise(told)):
            raise ScannerError(f"timesteps {told}: needed one or two, the larger (the noisier) first")
        if self.prior_noises is not None and not 2 <= self.prior_noises <= PRIOR_NOISES:  # a covariance needs two
            raise ScannerError(f"prior_noises {self.prior_noises}: needed 2 to {PRIOR_NOISES}")
        if not 1 <= self.guidance_scale < math.inf:
            raise ScannerError(f"guidance_scale {self.guidance_scale}: needed 1 (no guidance) or more, and finite")

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> "ScanConfig":
        """A configuration as JSON has it, with lists for tuples; what only a newer overscan knows is left out."""
        known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
        told = raw.get("timesteps", ())  # an older overscan had no choice
        noises = raw.get("prior_noises", PRIOR_NOISES)
        asked = {"timesteps": None if told is None else tuple(told), "prior_noises": noises}
        return cls(**known | asked | {"seeds": tuple(raw["seeds"])})

    @property
    def told(self) -> tuple[int, ...]:
        """The timesteps that are named, the noisier first."""
        return self.timesteps or ()

    def settled(self, usual: tuple[int, ...]) -> "ScanConfig":
        """Itself with timesteps: those that are `usual` where none were asked for, and no step follows the first."""
        if self.timesteps is not None:
            return self
        return replace(self, timesteps=usual if self.first_steps == 1 else ())

    def with_timesteps(self, timesteps: tuple[int, ...] | None) -> "ScanConfig":
        """Itself with these, None: to be settled; where it was settled for others, so is its prior."""
        same = self.timesteps in (None, timesteps)
        return replace(self, timesteps=timesteps, prior_noises=self.prior_noises if same else None)

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
        if not self.timesteps:  # as before there was a choice, of this and the next
            del what["timesteps"]
        if self.prior_noises in (None, PRIOR_NOISES):
            del what["prior_noises"]
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
    `told`: what the network is told in the first pass, as `ScanConfig.timesteps`; None: the first of the scan's.
    `wanted`: the share of what all passes find that the screen shall keep, where it was chosen for that, and `why`, in
    words.
    """

    share: float
    score: str | None = None
    model: str | Path | None = None
    precision: str | None = None
    sample: float = 0.0
    told: tuple[int, ...] | None = None
    wanted: float | None = None
    why: str = ""

    @property
    def own_engine(self) -> bool:
        """Whether the first pass runs on another model or in another precision than the scan."""
        return self.model is not None or self.precision is not None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ScannerError(f"screen {self.share:g}: needed a share of the prompts between 0 and 1, such as 0.02")
        if self.told is not None and len(self.told) > 1:
            raise ScannerError(f"screen told {self.told}: a first pass is one pass: needed one timestep")
        _check_sample(self.sample)

    def first_pass(self, config: ScanConfig) -> ScanConfig:
        """The settings of the first pass: those of a plain scan of one seed, so that its rows serve such a scan too."""
        told = config.timesteps and config.timesteps[:1]
        first = replace(config, seeds=config.seeds[:1], first_steps=1, timesteps=told)
        return first if self.told is None else first.with_timesteps(self.told)


@dataclass(frozen=True)
class AutoScreen:
    """A screen yet to be chosen: the cheapest that keeps the share `wanted` of what all passes find.

    `curves`: a table that says what first passes keep, as `overscan evaluate --screens` writes it; None: that of the
    models that overscan was measured on. `model`, `precision`, `sample`: as of `Screen`; what the screen keeps among
    the sample, each night is told, and a screen that loses more than was wanted is widened the night after.
    """

    wanted: float = 0.99
    curves: str | Path | None = None
    model: str | Path | None = None
    precision: str | None = None
    sample: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.wanted < 1:
            raise ScannerError(f"screen wanted {self.wanted:g}: needed a share between 0 and 1, such as 0.99")
        _check_sample(self.sample)


def _check_sample(sample: float) -> None:
    if not 0 <= sample < 1:
        raise ScannerError(f"screen sample {sample:g}: needed a share of the prompts from 0 to 1, such as 0.02")
