"""Which score, at which timestep, of how many passes: tables to choose from.

    python -m tools.ground_truth.study BUNDLE LABELS.parquet FOLDER

Every timestep is tried as what the network is told beside the starting noise x_T itself: a first step there, where it
is a noisy one, and a *label* where little noise is meant. A pass per seed and timestep; the empty prompt's are shared.
Read only after `tools.ground_truth.realism`, and choose on one pair of models what another confirms. Interrupted, it
goes on with what it kept in FOLDER.
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from scanner.diffusion.baselines import SHRINKAGE, Covariance
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.lengths import flat, measured_ratio
from scanner.diffusion.spectrum import Spectrum, shrinkage
from scanner.diffusion.start import PRIOR_SEEDS, initial_noise
from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.kept import Kept
from scanner.evidence.metrics import auroc, tpr_at_fpr
from scanner.identity import identity
from scanner.model import Model

from .realism import told

SEEDS = (0, 1, 2, 3)
TIMESTEPS = (981, 941, 901, 801, 701, 601, 501, 401, 301, 201, 101, 41)
NOISY = (981, 901, 801)  # where clean estimates and their prior are looked at
PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))  # of seeds
CHUNK = 32
MOST_NEGATIVES = 3000


class Measure:
    """Distances of clean estimates by the prior's covariance, in three forms of it."""

    def __init__(self, prior: np.ndarray):
        self.mean = prior.mean(0, dtype=np.float64).astype(np.float32)
        deviations, n = prior - self.mean, len(prior) - 1
        self.spectrum = Spectrum.of(deviations, n)
        whitened = self.spectrum.whitened(deviations).reshape(n + 1, -1)
        plain = deviations.reshape(n + 1, -1)
        self.shrinkage = shrinkage(whitened)
        self.forms = {
            "identity .6": (False, Covariance.of(plain, n, SHRINKAGE)),
            "identity .1": (False, Covariance.of(plain, n, 0.1)),
            "spectral": (True, Covariance.of(whitened, n, self.shrinkage)),
        }

    def seen(self, form: str, z: np.ndarray) -> np.ndarray:
        return self.spectrum.whitened(z) if self.forms[form][0] else z

    def distance(self, form: str, z: np.ndarray) -> np.ndarray:
        """[B, S, C, H, W] -> [B, S]."""
        return self.forms[form][1].distance(flat(self.seen(form, z)))

    def ratio(self, form: str, estimate: np.ndarray) -> np.ndarray:
        """The log of the distance from the prior's mean over the seeds' deviation, [B]."""
        centre = self.seen(form, np.zeros_like(self.mean))
        return measured_ratio(self.seen(form, estimate - self.mean), centre, self.forms[form][1])


class Study:
    """What all prompts share: starting noise, the empty prompt's predictions and the prior at each noisy timestep."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.x_T = initial_noise(SEEDS, denoiser.latent_shape)
        self.uncond = {t: denoiser.predict(self.x_T[None], t, denoiser.null) for t in TIMESTEPS}
        noise = initial_noise(PRIOR_SEEDS, denoiser.latent_shape)
        self.measures = {t: Measure(denoiser.predict(noise[None], t, denoiser.null).x0[0]) for t in NOISY}

    def features(self, conditioning: Conditioning) -> dict[str, np.ndarray]:
        """[B, S], or for ratios [B, PAIRS]."""
        x_T = np.broadcast_to(self.x_T, (len(conditioning), *self.x_T.shape))
        found = {}
        for t in TIMESTEPS:
            cond = self.denoiser.predict(x_T, t, conditioning)
            found[f"norm {t}"] = np.linalg.norm(flat(cond.eps - self.uncond[t].eps), axis=-1)
            for form in self.measures[t].forms if t in NOISY else ():
                measure = self.measures[t]
                found[f"prior {t} {form}"] = measure.distance(form, cond.x0 - self.uncond[t].x0)
                ratios = [measure.ratio(form, cond.x0[:, list(pair)]) for pair in PAIRS]
                found[f"ratio {t} {form}"] = np.stack(ratios, -1)
        return found


def columns() -> list[str]:
    """Names of the features, in the order in which they are kept."""
    forms = ("identity .6", "identity .1", "spectral")
    noisy = [f"{kind} {t} {form}" for t, form, kind in product(NOISY, forms, ("prior", "ratio"))]
    return [f"norm {t}" for t in TIMESTEPS] + noisy


def measured(model: Model, prompts: list[str], folder: Path) -> dict[str, np.ndarray]:
    """Features of all prompts, [n, S] or [n, PAIRS]."""
    study, names = Study(model.denoiser), columns()
    for t, measure in study.measures.items():
        print(f"prior at {t}: shrinkage by the data {measure.shrinkage}")
    key = identity({"scan_id": model.scan_id, "prompts": prompts, "columns": names, "chunk": CHUNK})
    kept, parts = Kept(folder, key), []

    def computed(texts: list[str]) -> np.ndarray:
        found = study.features(study.denoiser.encode(texts))
        return np.concatenate([found[name] for name in names], axis=1).astype(np.float64)

    for number, start in enumerate(range(0, len(prompts), CHUNK)):
        told("study", start, len(prompts))
        part = prompts[start : start + CHUNK]
        parts.append(kept.chunk(number, lambda part=part: computed(part)))
    widths = np.cumsum([len(PAIRS) if name.startswith("ratio") else len(SEEDS) for name in names])[:-1]
    return dict(zip(names, np.split(np.concatenate(parts), widths, axis=1), strict=True))


def candidates(found: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, np.ndarray]]:
    """(name, passes, values [n, choices of seeds])."""
    for name, values in found.items():
        if name.startswith("ratio"):
            yield name, 2, values
            continue
        yield name, 1, values
        yield f"{name}, 2 seeds", 2, np.stack([values[:, list(pair)].mean(1) for pair in PAIRS], 1)
    lows = [t for t in TIMESTEPS if t <= 401]
    for low, high in product(lows, NOISY):
        for form in ("identity .6", "spectral"):
            both = np.log(found[f"norm {low}"]) + np.log(found[f"prior {high} {form}"])
            yield f"log norm {low} + log prior {high} {form}", 2, both


def table(found: Mapping[str, np.ndarray], labels: pl.DataFrame) -> pl.DataFrame:
    """A row per candidate and treatment of collapsed prompts: means over choices of seeds, and their range at 1 %."""
    rows = []
    for treatment in ("left out", "negative"):
        label = labels.select(label=COLLAPSED[treatment])["label"]
        kept, told_apart = label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()
        for name, passes, values in candidates(found):
            each = [values[kept, i] for i in range(values.shape[1])]
            rates = [tpr_at_fpr(one, told_apart, 0.01) for one in each]
            rows.append(
                {
                    "collapsed": treatment,
                    "score": name,
                    "passes": passes,
                    "auroc": float(np.mean([auroc(one, told_apart) for one in each])),
                    "tpr_at_0.01": float(np.mean(rates)),
                    "lowest": min(rates),
                    "highest": max(rates),
                    "tpr_at_0.001": float(np.mean([tpr_at_fpr(one, told_apart, 0.001) for one in each])),
                }
            )
    return pl.DataFrame(rows)


def main() -> None:
    """Print the best candidates of each price."""
    bundle, path, folder = map(Path, sys.argv[1:])
    labels = pl.read_parquet(path).drop_nulls("label")
    others = labels.filter(~pl.col("label"))
    others = others.sample(min(MOST_NEGATIVES, len(others)), seed=1, shuffle=True)
    labels = pl.concat([labels.filter("label"), others])
    model = Model(bundle, "openvino", "float32", batch_size=64)
    found = table(measured(model, labels["prompt"].to_list(), folder), labels)
    found.write_parquet(folder / "study.parquet")
    with pl.Config(tbl_rows=-1, tbl_width_chars=200, fmt_str_lengths=60):
        for treatment, passes in product(("left out", "negative"), (1, 2)):
            best = found.filter(collapsed=treatment, passes=passes).sort("tpr_at_0.01", descending=True)
            print(best.head(40))


if __name__ == "__main__":
    main()
