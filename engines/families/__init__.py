"""The exporter's half of each family: what its checkpoints are made of. A file and a row for each."""

from engines.families import flux, pixart, stable_diffusion, stable_diffusion_3, stable_diffusion_xl
from engines.families.exporter import ABSENT, DEFAULTS, Described, Exporter, Network, Options

__all__ = ["ABSENT", "DEFAULTS", "EXPORTERS", "Described", "Exporter", "Network", "Options"]

EXPORTERS = (
    stable_diffusion.EXPORTER,
    stable_diffusion_xl.EXPORTER,
    stable_diffusion_3.EXPORTER,
    pixart.EXPORTER,
    flux.EXPORTER,
)
