"""Which first pass to screen by: the cheapest that keeps what is wanted, by a table of what first passes keep."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from scanner.errors import InputError, ScannerError, first_line

MEASURED = Path(__file__).with_name("screens.csv")  # by tools/screening.py: of each row the lowest over our models
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
FIRST, USUAL = "first", "usual"  # of `told`: the sampler's own first timestep, and what is usual for such a latent
SCHEMA: dict[str, pl.DataType] = {
    "side": pl.Float64(),  # of the first pass's latent, as a share of the model's own
    "told": pl.String(),  # in the first pass: FIRST, USUAL or a timestep
    "score": pl.String(),
    "share": pl.Float64(),  # of the ordinary prompts, that get all passes
    "kept": pl.Float64(),  # of the memorized prompts that all passes find at 1 % false alarms
}


@dataclass(frozen=True)
class Choice:
    """A row of such a table, and its price: UNet passes per prompt, in passes of the full model.

    `told`: as `Screen.told`; None: what is usual for the first pass's own latent.
    """

    side: float
    told: tuple[int, ...] | None
    score: str
    share: float
    kept: float
    price: float


def read(path: str | Path | None = None) -> pl.DataFrame:
    """A table of SCHEMA; None: the measured one that comes with overscan. Raises InputError."""
    try:
        return pl.read_csv(path or MEASURED, schema_overrides=SCHEMA).select(list(SCHEMA))
    except (pl.exceptions.PolarsError, OSError) as error:
        found, columns = first_line(error), ", ".join(SCHEMA)
        raise InputError(f"{path or MEASURED}: no table of screens ({found}): needed CSV with {columns}") from error


def price(side: float, share: float, sample: float, passes: int) -> float:
    """Of a screened scan: the first pass, by the area of its latent, and all `passes` for the share and the sample."""
    return side**2 + passes * (share + sample * (1 - share))


def choose(table: pl.DataFrame, wanted: float, side: float, sample: float, passes: int) -> Choice:
    """The cheapest first pass of latents of that side which keeps the share `wanted`. Raises ScannerError where none
    does, or none is cheaper than `passes` for everyone."""
    of_side = table.filter((pl.col("side") - side).abs() < 1e-3)
    if of_side.is_empty():
        sides = ", ".join(f"{known:g}" for known in table["side"].unique().sort(descending=True))
        raise ScannerError(
            f"screen auto: the first pass's latents have {side:g} of the model's side, and what such a pass keeps is "
            f"not known, only of {sides}: name --screen SHARE"
        )
    able = of_side.filter(pl.col("kept") >= wanted).sort("share", -pl.col("kept"))
    if able.is_empty():
        most = of_side.sort("kept").row(-1, named=True)
        raise ScannerError(
            f"screen auto: no first pass keeps {wanted:g} of what all passes find; {most['score']} keeps "
            f"{most['kept']:g} at a share of {most['share']:g}: want less (--screen-keep), or scan without a screen"
        )
    row = able.row(0, named=True)
    cost = price(side, row["share"], sample, passes)
    if cost >= passes:
        raise ScannerError(
            f"screen auto: to keep {wanted:g} of what all passes find costs {cost:.2f} passes per prompt, and a scan "
            f"without a screen {passes}: scan without one, ask for more seeds, or want less (--screen-keep)"
        )
    return Choice(side, _told(row["told"]), row["score"], row["share"], row["kept"], cost)


def _told(said: str) -> tuple[int, ...] | None:
    return None if said == USUAL else () if said == FIRST else (int(said),)
