"""Verifications in numbers: those of a prompt, and those of its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from scanner.evidence.decomposition import Floats
from scanner.evidence.verification import Fit, Similarity, Verification, verdict
from scanner.identity import prompt_id


def summary(found: Verification) -> dict[str, Any]:
    """The numbers of one prompt that are not per step, as JSON has them (NaN: null).

    `sweep`: those at every guidance scale, from the smallest up, this one's too; empty without others.
    """
    return _summary(found) | {"sweep": [_summary(one) for one in found.by_scale]}


def _summary(found: Verification) -> dict[str, Any]:
    given, fit_given = found.given, found.fit_given
    return {
        "prompt_id": prompt_id(found.prompt),
        "prompt": found.prompt,
        "guidance_scale": found.guidance_scale,
        "verdict": verdict(found),
        "agreeing_seeds": found.agreeing,
        "copying_seeds": found.copying,
        "mean_correlation": _finite(found.mean_correlation),
        "among_seeds": _plain(found.among_seeds),
        "to_given": None if given is None else _plain(given.similarity),
        "seed_distance_start": _finite(float(found.distance[0])),
        "seed_distance_end": _finite(float(found.distance[-1])),
        "D1": float(found.fit.deviation.D1),
        "D2": float(found.fit.deviation.D2),
        "D1_empty_prompt": float(found.fit_uncond.deviation.D1),
        "D2_empty_prompt": float(found.fit_uncond.deviation.D2),
        "D1_given": None if fit_given is None else float(fit_given.deviation.D1),
        "D2_given": None if fit_given is None else float(fit_given.deviation.D2),
    }


def _plain(similarity: Similarity) -> Mapping[str, Any]:
    return {
        name: None if kind is None else [_finite(part) for part in kind.tolist()]
        for name, kind in similarity._asdict().items()
    }


def _finite(number: Any) -> Any:
    """A number, or a list of numbers, with None for NaN."""
    if isinstance(number, list):
        return [_finite(part) for part in number]
    return None if np.isnan(number) else round(number, 6)


def steps(found: Sequence[Verification]) -> pl.DataFrame:
    """A row per prompt, guidance scale, seed and step: weights, residuals, losses, cosines, norms, and the distance
    between the prompt's seeds."""
    return pl.concat([_steps(one) for prompt in found for one in (prompt, *prompt.swept)])


def _steps(found: Verification) -> pl.DataFrame:
    K, S = found.norm_hat.shape
    fits = {"": found.fit, "_given": found.fit_given}
    columns: dict[str, Any] = {
        "prompt_id": [prompt_id(found.prompt)] * (K * S),
        "guidance_scale": np.full(K * S, found.guidance_scale),
        "seed": np.tile(found.seeds, K),
        "step": np.repeat(np.arange(K), S),
        "timestep": np.repeat(found.timesteps, S),
        "signal_rate": np.repeat(found.signal_rate, S),
        "noise_rate": np.repeat(found.noise_rate, S),
    }
    for suffix, fit in fits.items():
        for name, values in _of_image(fit or found.fit).items():
            columns[name + suffix] = np.full(K * S, np.nan) if fit is None else values.ravel()
    columns |= {f"cosine_x_T_{branch}": values.ravel() for branch, values in found.cosine_x_T._asdict().items()}
    for name in ("norm_hat", "norm_cond", "norm_uncond"):
        columns[name] = getattr(found, name).ravel()
    columns["seed_distance"] = np.repeat(found.distance[:K], S)
    columns["seed_distance_uncond"] = np.repeat(found.distance_uncond[:K], S)
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))


def _of_image(fit: Fit) -> dict[str, Floats]:
    """Columns [K, S] that are against an image x_0."""
    losses = {f"loss_{branch}": values for branch, values in fit.loss._asdict().items()}
    cosines = {f"cosine_x_0_{branch}": values for branch, values in fit.cosine._asdict().items()}
    return fit.weights._asdict() | losses | cosines
