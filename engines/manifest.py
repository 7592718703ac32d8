"""`engine.json`: what a bundle holds, where it came from, and the hashes that prove it intact."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.interface import BundleError, EngineError, TensorSpec
from engines.left_behind import sweep_unlocked
from engines.partial import partial_folder, prefix, sweep

FILE = "engine.json"
FORMAT = 1
FILES = re.compile(r"(engine|tokenizer)\.json|.+\.(onnx|onnx\.data|xml|bin)")  # what an export writes


@dataclass(frozen=True)
class Component:
    """One network: its files with their sha256 (the first is the one to open), its inputs and outputs."""

    files: Mapping[str, str]
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def check_names(self, path: Path, takes: Iterable[str], gives: Iterable[str]) -> None:
        """Raise EngineError where the graph of a file has other inputs or outputs than the manifest says."""
        for verb, names, needed in (("takes", set(takes), self.inputs), ("gives", set(gives), self.outputs)):
            if names != set(needed):
                found, wanted = ", ".join(sorted(names)), ", ".join(sorted(needed))
                raise EngineError(f"{path}: the graph {verb} {found}, needed {wanted}: export the model again")


@dataclass(frozen=True)
class Manifest:
    """Everything that a scan must know about a model beside its networks.

    `schedule`: curve (`scaled_linear` or `linear`), beta_start, beta_end, num_train_timesteps, timestep_spacing,
    steps_offset, set_alpha_to_one, as in diffusers. `latent_std`: RMS distance per element of the data's latents from
    their mean; 1 where unknown, as latents are scaled to unit variance. `grids`: by number of steps, the sampler's own:
    `timesteps`, what the network is told at each step; `signal_rate` and `noise_rate` there; and
    `initial_noise_scale`, the standard deviation of what it is given first. None in older bundles, whose grids follow
    from the schedule. `fixed`: what the family settled beside the networks, as numbers, lists of numbers and names.
    `changes`: what was put into the checkpoint before it was exported (a network, a LoRA): names and hashes.
    """

    family: str
    prediction_type: str
    schedule: Mapping[str, Any]
    latent_shape: tuple[int, int, int]  # C, H, W
    latent_std: float
    precision: str
    tokenizer: Mapping[str, str]  # file: sha256
    components: Mapping[str, Component]
    source: Mapping[str, str]
    versions: Mapping[str, str]
    format: int = FORMAT
    grids: Mapping[str, Mapping[str, Any]] | None = None
    fixed: Mapping[str, Any] | None = None
    changes: Mapping[str, str] | None = None

    @property
    def fingerprint(self) -> str:
        """blake2b-128 of the canonical JSON: hashes of weights and graphs, shapes, schedule, exporter; no name."""
        named = {name: value for name, value in self._said().items() if name != "source"}
        canonical = json.dumps(named, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `engine.json`, with the fingerprint that proves it intact."""
        (folder / FILE).write_text(
            json.dumps({"fingerprint": self.fingerprint} | self._said(), indent=1) + "\n", encoding="utf-8"
        )

    def _said(self) -> dict[str, Any]:
        """All but what it does not say, so that bundles older than a field keep their fingerprint."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def parse(path: Path) -> Manifest:
    """The manifest of a file, its fingerprint verified, and nothing else of it. Raises BundleError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = raw["format"]
        if found != FORMAT:
            raise BundleError(f"{path}: bundle format {found}, this overscan reads {FORMAT}: export the model again")
        fingerprint = raw.pop("fingerprint")
        components = {name: _component(entry) for name, entry in raw.pop("components").items()}
        manifest = Manifest(**raw | {"components": components, "latent_shape": tuple(raw["latent_shape"])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: not a readable manifest ({error!r}): export the model again") from error
    if manifest.fingerprint != fingerprint:
        raise BundleError(f"{path}: damaged or edited (its fingerprint differs): copy or export it again")
    return manifest


def require_new(out: Path) -> None:
    """Raise EngineError where `out` exists."""
    if out.exists():
        raise EngineError(f"{out} exists: remove it or name another folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write a bundle to, which becomes `out` when all has passed; else nothing is left behind.

    What a killed export left beside `out`, the next one to the same place removes.

    Raises EngineError where `out` exists.
    """
    require_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, prefix(out))
    sweep_unlocked(out.parent, f".{out.name}-", FILES)
    with partial_folder(out.parent, prefix(out)) as partial:
        yield partial
        partial.rename(out)


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _component(entry: Mapping[str, Any]) -> Component:
    def specs(table: Mapping[str, Any]) -> dict[str, TensorSpec]:
        return {name: TensorSpec(spec["dtype"], tuple(spec["shape"])) for name, spec in table.items()}

    return Component(dict(entry["files"]), specs(entry["inputs"]), specs(entry["outputs"]))
