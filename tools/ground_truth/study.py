"""Which score, at which timestep, of how many passes: tables to choose from.

    python -m tools.ground_truth.study BUNDLE LABELS.parquet FOLDER

Every timestep is tried as what the network is told beside the starting noise x_T itself: a first step there, where it
is a noisy one, and a *label* where little noise is meant. A pass per seed and timestep; the empty prompt's are shared.
Read only after `tools.ground_truth.realism`, and choose on one pair of models what another confirms. Interrupted, it
goes on with what it kept in FOLDER.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from scanner.diffusion.baselines import Covariance, Prior
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.lengths import flat, measured_ratio
from scanner.diffusion.start import initial_noise, predict_prior
from scanner.evidence.kept import keeping
from scanner.model import Model

from .rates import decided, show, table
from .realism import told

SEEDS = (0, 1, 2, 3)
TIMESTEPS = (981, 941, 901, 801, 701, 601, 501, 401, 301, 201, 101, 41)
NOISY = (981, 901, 801)  # where clean estimates and their prior are looked at
PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))  # of seeds
BATCH = 256  # 32 prompts in hand


class Measure:
    """Distances of clean estimates by the prior's covariance, in three forms of it."""

    def __init__(self, prior: Prior):
        plain = prior.x0_uncond - prior.mean
        near = Covariance.of(plain.reshape(len(plain), -1), len(plain) - 1, 0.1)
        self.mean = prior.mean
        self.forms = {
            "identity .6": lambda z: prior.covariance.distance(flat(z)),
            "identity .1": lambda z: near.distance(flat(z)),
            "spectral": prior.spectral.distance,
        }

    def ratio(self, form: str, estimate: np.ndarray) -> np.ndarray:
        """The log of the distance from the prior's mean over the seeds' deviation, [B]."""
        return measured_ratio(estimate, self.mean, self.forms[form])


class Study:
    """What all prompts share: starting noise, the empty prompt's predictions and the prior at each noisy timestep."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.x_T = initial_noise(SEEDS, denoiser.latent_shape)
        self.uncond = {t: denoiser.predict(self.x_T[None], t, denoiser.null) for t in TIMESTEPS}
        self.measures = {t: Measure(predict_prior(denoiser, 50, told=(t,))) for t in NOISY}

    def features(self, conditioning: Conditioning) -> dict[str, np.ndarray]:
        """[B, S], or for ratios [B, PAIRS]."""
        x_T = np.broadcast_to(self.x_T, (len(conditioning), *self.x_T.shape))
        found = {}
        for t in TIMESTEPS:
            cond = self.denoiser.predict(x_T, t, conditioning)
            found[f"norm {t}"] = np.linalg.norm(flat(cond.eps - self.uncond[t].eps), axis=-1)
            for form in self.measures[t].forms if t in NOISY else ():
                measure = self.measures[t]
                found[f"prior {t} {form}"] = measure.forms[form](cond.x0 - self.uncond[t].x0)
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

    def computed(texts: Sequence[str]) -> np.ndarray:
        found = study.features(study.denoiser.encode(texts))
        return np.concatenate([found[name] for name in names], axis=1).astype(np.float64)

    values = keeping(folder, "study", [model.scan_id, names], prompts, BATCH, computed, told, lambda: False)
    widths = np.cumsum([len(PAIRS) if name.startswith("ratio") else len(SEEDS) for name in names])[:-1]
    return dict(zip(names, np.split(values, widths, axis=1), strict=True))


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


def main() -> None:
    """Print the best candidates of each price."""
    bundle, path, folder = map(Path, sys.argv[1:])
    labels = decided(path)
    model = Model(bundle, "openvino", "float32", batch_size=64)
    found = table(candidates(measured(model, labels["prompt"].to_list(), folder)), labels)
    found.write_parquet(folder / "study.parquet")
    show(found)


if __name__ == "__main__":
    main()
