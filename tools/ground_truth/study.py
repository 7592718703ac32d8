"""Which score, at which timestep, of how many passes: tables to choose from.

    python -m tools.ground_truth.study BUNDLE LABELS.parquet FOLDER [REFERENCE ...]

Every timestep is tried as what the network is told beside the starting noise x_T itself: a first step there, where it
is a noisy one, and a *label* where little noise is meant. A pass per seed and timestep; the empty prompt's are shared.
Estimates are measured by the model's own prior, and by each REFERENCE, a list of ordinary captions (ordinary.txt beside
this file is one of everyday captions).
Read only after `tools.ground_truth.realism`, and choose on one pair of models what another confirms. Interrupted, it
goes on with what it kept in FOLDER.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from scanner.dataset import captions
from scanner.diffusion.baselines import Covariance, Prior, Reference
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.lengths import flat, measured_ratio
from scanner.diffusion.prediction import Prediction
from scanner.diffusion.start import initial_noise, predict_prior
from scanner.evidence.kept import keeping
from scanner.model import Model

from .rates import show, table
from .realism import told
from .spectrum import SpectralCovariance

SEEDS = (0, 1, 2, 3)
TIMESTEPS = (981, 941, 901, 801, 701, 601, 501, 401, 301, 201, 101, 41)
NOISY = (981, 901, 801)  # where clean estimates and their prior are looked at
PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))  # of seeds
OFTEN, OTHERS = 6, 1500
BATCH = 256  # 32 prompts in hand


@dataclass(frozen=True)
class Yardstick:
    """What clean estimates are measured by: from `origin` [S, C, H, W], or over seeds from `centre`, in forms of a
    covariance."""

    origin: np.ndarray
    centre: np.ndarray
    forms: Mapping[str, Callable[[np.ndarray], np.ndarray]]

    @classmethod
    def of_prior(cls, prior: Prior, uncond: np.ndarray) -> "Yardstick":
        """The model's own, without a caption."""
        plain = (prior.x0_uncond - prior.mean).reshape(len(prior.x0_uncond), -1)
        near = Covariance.of(plain, len(plain) - 1, 0.1)
        forms = {
            "identity .6": lambda z: prior.covariance.distance(flat(z)),
            "identity .1": lambda z: near.distance(flat(z)),
            "spectral": SpectralCovariance.of(prior.x0_uncond - prior.mean, len(plain) - 1).distance,
        }
        return cls(uncond, prior.mean, forms)

    @classmethod
    def of_captions(cls, x0: np.ndarray) -> "Yardstick":
        """Ordinary captions' estimates [R, S, C, H, W]."""
        reference = Reference(x0)
        forms = {"identity .6": lambda z: reference.covariance.distance(flat(z))}
        return cls(reference.mean, reference.mean.mean(0), forms)

    def features(self, x0: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Of estimates [B, S, C, H, W]: distances [B, S] and ratios [B, PAIRS] in each form."""
        for form, distance in self.forms.items():
            yield f"distance {form}", distance(x0 - self.origin)
            ratios = [measured_ratio(x0[:, list(pair)], self.centre, distance) for pair in PAIRS]
            yield f"ratio {form}", np.stack(ratios, -1)


class Study:
    """What all prompts share: starting noise, the empty prompt's predictions, and yardsticks at each noisy timestep."""

    def __init__(self, denoiser: Denoiser, references: Mapping[str, Sequence[str]]):
        self.denoiser = denoiser
        self.x_T = initial_noise(SEEDS, denoiser.latent_shape)
        self.uncond = {t: denoiser.predict(self.x_T[None], t, denoiser.null) for t in TIMESTEPS}
        self.yardsticks = {t: self._yardsticks(t, references) for t in NOISY}

    def _yardsticks(self, t: int, references: Mapping[str, Sequence[str]]) -> dict[str, Yardstick]:
        prior = Yardstick.of_prior(predict_prior(self.denoiser, 50, told=(t,)), self.uncond[t].x0[0])
        captions = {name: self._predict(t, self.denoiser.encode(texts)).x0 for name, texts in references.items()}
        return {"prior": prior} | {name: Yardstick.of_captions(x0) for name, x0 in captions.items()}

    def _predict(self, t: int, conditioning: Conditioning) -> Prediction:
        x_T = np.broadcast_to(self.x_T, (len(conditioning), *self.x_T.shape))
        return self.denoiser.predict(x_T, t, conditioning)

    def features(self, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """[B, S], or for ratios [B, PAIRS]."""
        conditioning, found = self.denoiser.encode(prompts), {}
        for t in TIMESTEPS:
            cond = self._predict(t, conditioning)
            found[f"norm {t}"] = np.linalg.norm(flat(cond.eps - self.uncond[t].eps), axis=-1)
            for name, yardstick in self.yardsticks.get(t, {}).items():
                found |= {f"{name} {t} {feature}": values for feature, values in yardstick.features(cond.x0)}
        return found


def measured(
    model: Model, references: Mapping[str, Sequence[str]], prompts: Sequence[str], folder: Path
) -> dict[str, np.ndarray]:
    """Features of all prompts, [n, S] or [n, PAIRS]."""
    study = Study(model.denoiser, references)
    widths = {name: values.shape[1] for name, values in study.features([""]).items()}

    def computed(texts: Sequence[str]) -> np.ndarray:
        return np.concatenate(list(study.features(texts).values()), axis=1).astype(np.float64)

    made_of = [model.scan_id, widths, references]
    values = keeping(folder, "study", made_of, prompts, BATCH, computed, told, lambda: False)
    return dict(zip(widths, np.split(values, np.cumsum(list(widths.values()))[:-1], axis=1), strict=True))


def candidates(found: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, np.ndarray]]:
    """(name, passes, values [n, choices of seeds])."""
    for name, values in found.items():
        if " ratio " in name:
            yield name, 2, values
            continue
        yield name, 1, values
        yield f"{name}, 2 seeds", 2, np.stack([values[:, list(pair)].mean(1) for pair in PAIRS], 1)
    highs = [name for name in found if " distance " in name]
    for low, high in product([t for t in TIMESTEPS if t <= 401], highs):
        yield f"log norm {low} + log {high}", 2, np.log(found[f"norm {low}"]) + np.log(found[high])


def sample(labels: pl.DataFrame) -> pl.DataFrame:
    """The captions that are hard to tell, those of edits, templates, sets and many showings, and OTHERS by chance."""
    often = (pl.col("role") == "fixed") & (pl.col("duplicates") >= OFTEN)
    hard = often | pl.col("role").is_in(["edited", "template", "retrieval"])
    others = labels.join(labels.filter(hard), on="prompt", how="anti")
    chosen = pl.concat([labels.filter(hard), others.sample(min(OTHERS, len(others)), seed=7, shuffle=True)])
    return chosen.drop_nulls("label")


def main() -> None:
    """Print the best candidates of each price."""
    bundle, path, folder, *lists = map(Path, sys.argv[1:])
    labels = sample(pl.read_parquet(path))
    model = Model(bundle, "openvino", "float32", batch_size=64)
    references = {name.stem: captions.reference(name) for name in lists}
    found = table(candidates(measured(model, references, labels["prompt"].to_list(), folder)), labels)
    found.write_parquet(folder / "study.parquet")
    show(found)


if __name__ == "__main__":
    main()
