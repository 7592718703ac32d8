"""What a family of models is to the exporter: what a checkpoint of it is made of, and its networks as named arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from engines.grids import SIGMAS, TABLE, Arrange, Sampling, arrange
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Options:
    """What may be asked for beside a checkpoint; None is the pipeline's own default. Sizes in pixels.

    `size`: of the images. `original_size`, `crop` (top, left) and `target_size`: what SDXL is told of its training
    images.
    """

    size: Size | None = None
    original_size: Size | None = None
    crop: tuple[int, int] | None = None
    target_size: Size | None = None

    @property
    def asked(self) -> list[str]:
        """The names of those that differ from the default."""
        return [item.name for item in fields(self) if getattr(self, item.name) != item.default]


DEFAULTS = Options()


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

    `latent_shape`: C, H, W. `lengths`: tokens of each tokenizer, by name. `fixed`: `Manifest.fixed`.
    """

    latent_shape: tuple[int, int, int]
    networks: Mapping[str, Network]
    lengths: Mapping[str, int]
    fixed: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Exporter:
    """`name`: the family's, as in the scan's half; `title`: for people. `parts`: of the pipeline's `model_index.json`,
    with their classes.

    `describe(parts, options, sampling)` refuses, with EngineError, what the pipeline would not run, or would run with
    more than a text. `takes`: the Options that mean something for it. `without`: parts that the pipeline does without.
    `kinds` of schedulers fit it; `arrange` gives one its grid.
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    parts: Mapping[str, str]
    describe: Callable[[Parts, Options, Sampling], Described]
    takes: frozenset[str] = frozenset({"size"})
    without: tuple[str, ...] = ("safety_checker", "feature_extractor", "image_encoder")
    kinds: tuple[str, ...] = (TABLE, SIGMAS)
    arrange: Arrange = arrange

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts with weights."""
        return tuple(name for name in self.parts if not name.startswith("tokenizer"))

    def check(self, options: Options) -> None:
        """Raise EngineError for an option that means nothing for the family."""
        if other := [name for name in options.asked if name not in self.takes]:
            raise EngineError(
                f"{_option(other[0])}: {self.title} knows no such setting; it takes "
                f"{', '.join(map(_option, sorted(self.takes)))}: leave it out"
            )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
