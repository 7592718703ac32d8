"""What a family of models is to the exporter: what a checkpoint of it is made of, and its networks as named arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from engines.grids import SIGMAS, STEPS, TABLE, Arrange, Sampling, arrange
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Options:
    """What may be asked for beside a checkpoint; None is the pipeline's own default. Sizes in pixels.

    `size`: of the images. `original_size`, `crop` (top, left) and `target_size`: what SDXL is told of its training
    images. `max_sequence_length`: tokens of a T5 text encoder. `guidance`: what FLUX dev is told of it.
    """

    size: Size | None = None
    original_size: Size | None = None
    crop: tuple[int, int] | None = None
    target_size: Size | None = None
    max_sequence_length: int | None = None
    guidance: float | None = None

    @property
    def asked(self) -> list[str]:
        """The names of those that differ from the default."""
        return [item.name for item in fields(self) if getattr(self, item.name) != item.default]


DEFAULTS = Options()
ABSENT = [None, None]  # how model_index.json says that a part is not there


@dataclass(frozen=True)
class Network:
    """A component: `wrap(part)` makes its module of the checkpoint's `part`, loaded.

    `inputs`: in the order that the module takes them; `outputs`: names in the order that it gives them.
    """

    part: str
    wrap: Callable[[Any], nn.Module]
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Described:
    """A checkpoint, looked at without its weights.

    `latent_shape`: C, H, W. `lengths`: tokens of each tokenizer, by name. `fixed`: `Manifest.fixed`. `lowercased`:
    whether the pipeline writes prompts in small letters.
    """

    latent_shape: tuple[int, int, int]
    networks: Mapping[str, Network]
    lengths: Mapping[str, int]
    fixed: Mapping[str, Any] | None = None
    lowercased: bool = False


@dataclass(frozen=True)
class Exporter:
    """`name`: the family's, as in the scan's half; `title`: for people. `parts`: of the pipeline's `model_index.json`,
    with their classes; the pipeline runs with or without all in `optional`. `denoiser`: which of them --unet replaces.

    `describe(parts, options, sampling)` refuses, with EngineError, what the pipeline would not run, or would run with
    more than a text. `takes`: the Options that mean something for it. `without`: parts that the pipeline does without.
    `kinds` of schedulers fit it, with grids of so many `steps`; `arrange(parts, options)` gives one its grid.
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    parts: Mapping[str, str]
    describe: Callable[[Parts, Options, Sampling], Described]
    takes: frozenset[str] = frozenset({"size"})
    without: tuple[str, ...] = ("safety_checker", "feature_extractor", "image_encoder")
    kinds: tuple[str, ...] = (TABLE, SIGMAS)
    arrange: Callable[[Parts, Options], Arrange] = lambda parts, options: arrange
    steps: tuple[int, ...] = STEPS
    denoiser: str = "unet"
    optional: frozenset[str] = frozenset()

    def held(self, index: Mapping[str, Any]) -> dict[str, str]:
        """The parts of a checkpoint, by its model_index.json, with their classes."""
        absent = all(index.get(name, ABSENT) == ABSENT for name in self.optional)
        without = self.optional if absent else frozenset[str]()
        return {name: kind for name, kind in self.parts.items() if name not in without}

    def check(self, options: Options) -> None:
        """Raise EngineError for an option that means nothing for the family."""
        if other := [name for name in options.asked if name not in self.takes]:
            raise EngineError(
                f"{_option(other[0])}: {self.title} knows no such setting; it takes "
                f"{', '.join(map(_option, sorted(self.takes)))}: leave it out"
            )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
