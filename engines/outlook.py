"""What an export of a checkpoint would do and take, without reading a weight."""

from collections.abc import Iterator
from pathlib import Path

from engines.families import DEFAULTS, Options
from engines.torch_ref import describe
from engines.weights import tried

BYTES = {"float32": 4, "float16": 2, "int8": 4}
# of Stable Diffusion 1.5's UNet, 860 million float32 parameters: 7 GB and 50 s on two cores
GIGABYTES, SECONDS = 7.0 / 0.86, 50 / 0.86


def outlook(folder: Path, dtype: str = "float32", options: Options = DEFAULTS) -> Iterator[str]:
    """Lines for people: family, grid, latent, components with sizes, memory and time. Raises EngineError, as `export`.

    Memory and time are computed from one model's, not run.
    """
    exporter, parts, described, sampling = describe(folder, options)
    given = tried(parts, described)
    steps = "50" if "50" in sampling.grids else max(sampling.grids, key=int)
    first = sampling.grids[steps]
    yield f"family      {exporter.title} ({exporter.name})"
    yield (
        f"grid        {parts.index['scheduler'][1]}, {sampling.prediction_type}, {', '.join(sampling.grids)} steps; "
        f"of {steps} the first is {first['timesteps'][0]:g}, signal rate {first['signal_rate'][0]:.3g}"
    )
    yield f"latent      {' x '.join(map(str, described.latent_shape))}"
    for name, value in (described.fixed or {}).items():
        yield f"fixed       {name} {value}"
    largest, total = 0, 0
    for name, network in described.networks.items():
        size = sum(parameter.numel() for parameter in parts.module(network.part).parameters())
        largest, total = max(largest, size), total + size
        yield f"component   {name}: {size / 1e6:,.1f} million parameters -> {', '.join(given[name])}"
    yield f"bundle      about {total * BYTES[dtype] / 1e9:.2g} GB in {dtype}"
    yield f"memory      about {largest / 1e9 * GIGABYTES:.2g} GB at most: computed from another model's, not run"
    yield f"time        about {total / 1e9 * SECONDS:.0f} s and the comparison of scores: computed, not run"
