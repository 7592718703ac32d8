"""The false discovery rate asked for against the one realised, over repeated draws, as a markdown table.

    python tools/fdr.py [--bundle BUNDLE --labels LABELS] [--draws N]

Simulated: null, benign and memorized scores of known distributions. Demo model: prompts labelled by full generation;
each draw splits the prompts that are not memorized at random into null and benign data, and adds memorized ones, a
tenth of the data; prompts whose seeds all give one image that is no copy (collapsed) count as benign, or are left out.
The last kind takes collapsed prompts as data and the others as null, so that null and data are not exchangeable: what
a wrong null costs. `warned`: share of draws in which the exchangeability check of the scores' bulk says so.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from scanner import scan
from scanner.audit.calibrate import Calibration
from scanner.audit.diagnose import exchangeability
from scanner.audit.rank import Rule, rank
from scanner.demo import BUNDLE, LABELS
from scanner.diffusion.scores import DEFAULT_SCORE

RATES = (0.05, 0.1, 0.2)
MEMORIZED = 0.1  # of the data
SCORES = (DEFAULT_SCORE, "overestimation_prior_v2", "estimate_ratio_prior_v2")
HEADER = (
    "where",
    "null",
    "prompts",
    "memorized",
    "fdr asked",
    "realised",
    "standard error",
    "found",
    "nothing flagged",
    "warned",
)
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]  # null, benign, memorized scores


def frame(scores: np.ndarray, memorized: np.ndarray) -> pl.DataFrame:
    """Prompts of those scores, the last ones being the memorized."""
    n = len(scores) + len(memorized)
    values = pl.Series("s", np.concatenate([scores, memorized]), pl.Float32)
    ids = [f"{i:032x}" for i in range(n)]
    return pl.DataFrame({"prompt_id": ids, "text": [""] * n, "memorized": np.arange(n) >= len(scores), "s": values})


def realise(draw: Draw, draws: int) -> Iterator[tuple[object, ...]]:
    """A row of the table for each rate, all rates judged on the same draws."""
    rng = np.random.default_rng(0)
    canaries = pl.DataFrame(schema={"canary": pl.String, "s": pl.Float32})
    found: dict[float, list[tuple[float, float, bool]]] = {fdr: [] for fdr in RATES}
    warned = 0
    for _ in range(draws):
        null, benign, memorized = draw(rng)
        data = frame(benign, memorized)
        calibration = Calibration.of("scan", "s", frame(null, null[:0]), canaries, {})
        for fdr in RATES:
            ranked = rank(data, Rule("s", fdr=fdr), calibration)
            flagged = ranked.filter("flagged")
            hits = flagged["memorized"].sum()
            fdp = (len(flagged) - hits) / max(1, len(flagged))
            found[fdr].append((fdp, hits / max(1, len(memorized)), flagged.is_empty()))
        warned += bool(exchangeability(calibration, ranked.lazy())["differs"][0])
    for fdr, rows in found.items():
        fdp, power, nothing = np.array(rows, np.float64).T
        error = f"{fdp.std() / np.sqrt(draws):.4f}"
        shares = f"{power.mean():.3f}", f"{nothing.mean():.3f}", f"{warned / draws:.3f}"
        yield len(null), len(data), len(memorized), fdr, f"{fdp.mean():.4f}", error, *shares


def simulated(n: int, m: int, hits: int) -> Draw:
    """Benign scores log-normal, as norms are; memorized ones three to four of their spreads above."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return rng.lognormal(size=n), rng.lognormal(size=m - hits), rng.lognormal(3.5, 0.5, size=hits)

    return draw


def drawn(null: np.ndarray, benign: np.ndarray, memorized: np.ndarray) -> Draw:
    """Null and data from two lists, three quarters of each at random; from one list, two thirds of it and the rest."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if null is benign:
            parts = np.split(rng.permutation(null), [2 * len(null) // 3])
        else:
            parts = [rng.choice(kind, 3 * len(kind) // 4, replace=False) for kind in (null, benign)]
        hits = min(len(memorized), int(len(parts[1]) * MEMORIZED / (1 - MEMORIZED)))
        return parts[0], parts[1], rng.choice(memorized, hits, replace=False)

    return draw


def demo(bundle: Path, labels: Path) -> Iterator[tuple[str, Draw]]:
    """Named draws of the labelled prompts, for each score; prompts whose label is open are left out."""
    with tempfile.TemporaryDirectory() as folder:
        listed = pl.read_parquet(labels).drop_nulls("label")
        listed.select(caption="prompt").write_parquet(Path(folder) / "prompts.parquet")
        scored = scan(Path(folder) / "prompts.parquet", model=bundle, store=Path(folder) / "store").scores
    judged = listed.join(scored, left_on="prompt", right_on="text")
    label, collapsed = pl.col("label"), pl.col("collapsed")
    for score in SCORES:
        memorized, benign, varied, alike = (
            judged.filter(kind)[score].to_numpy() for kind in (label, ~label, ~label & ~collapsed, ~label & collapsed)
        )
        yield f"demo, {score}, collapsed benign", drawn(benign, benign, memorized)
        yield f"demo, {score}, collapsed left out", drawn(varied, varied, memorized)
        yield f"demo, {score}, data collapsed, null not", drawn(varied, alike, memorized)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--draws", type=int, default=500)
    arguments = parser.parse_args()
    sizes = ((2000, 1000, 0), (2000, 1000, 10), (2000, 1000, 100), (20_000, 1000, 10))
    settings = [("simulated", simulated(*size)) for size in sizes]
    settings += demo(arguments.bundle, arguments.labels)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for where, draw in settings:
        for row in realise(draw, arguments.draws):
            print(f"| {where} | {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
