"""How exactly one engine computes the scores of another: the check of an export."""

from dataclasses import replace

import numpy as np
import polars as pl

from engines import Bundle, EngineError
from engines.memory import give_back
from scanner.config import ScanConfig
from scanner.diffusion.baselines import Prior
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import PRIOR_SEEDS, Watch, predict_prior, start, unwatched
from scanner.model import Model, Scorer
from scanner.model.scorer import EVERYDAY

# compared relatively, the others absolutely
NORMS = ("text_noise_norm_v1", "overestimation_v1", "overestimation_prior_v1", "guidance_spread_v1")
NOISES, PROMPTS = 4, EVERYDAY[:3]  # a pass of Stable Diffusion XL takes half a minute and more on two cores
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}


def compare(reference: Model, candidate: Model, prompts: pl.DataFrame, watch: Watch = unwatched) -> pl.DataFrame:
    """[score, kind, largest_error, rank_correlation]: relative error for norms, absolute for bounded scores.

    Both compute with the candidate's settings, sample by sample, and its prior, of few noises; only one of the two is
    in memory at a time.
    """
    manifest, config = candidate.bundle.manifest, candidate.settled
    prior, found = _scores(candidate.bundle, config, prompts, None, watch)
    give_back()
    opened = reference.bundle
    opened = replace(opened, manifest=replace(opened.manifest, latent_std=manifest.latent_std))  # no checkpoint's own
    _, expected = _scores(opened, config, prompts, prior, watch)
    return errors(expected, found)


def _scores(
    bundle: Bundle, config: ScanConfig, prompts: pl.DataFrame, prior: Prior | None, watch: Watch
) -> tuple[Prior, pl.DataFrame]:
    denoiser = Denoiser(bundle, batch_size=1)
    steps, told = config.num_inference_steps, config.told
    prior = prior or predict_prior(denoiser, steps, watch, told, PRIOR_SEEDS[:NOISES])
    first = replace(start(denoiser, config.seeds, steps, told), prior=prior)
    return prior, Scorer(denoiser, config, first, scan_id="", chunk=1)(prompts)


def errors(expected: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """[score, kind, largest_error, rank_correlation] of two engines' scores of the same prompts, as of `compare`."""
    rows = []
    for name in SCORES:
        pair = expected.select("prompt_id", a=name).join(found.select("prompt_id", b=name), on="prompt_id").drop_nulls()
        if pair.is_empty():  # a score that this configuration does not compute
            continue
        a, b = pair["a"].to_numpy().astype(np.float64), pair["b"].to_numpy().astype(np.float64)
        error = np.abs(a - b) / (np.abs(a) if name in NORMS else 1.0)
        ranks = pair.select(pl.corr("a", "b", method="spearman")).item()
        kind = "relative" if name in NORMS else "absolute"
        rows.append({"score": name, "kind": kind, "largest_error": float(error.max()), "rank_correlation": ranks})
    return pl.DataFrame(rows)


def check(reference: Model, candidate: Model, watch: Watch = unwatched) -> pl.DataFrame:
    """Compare on a few prompts. Raises EngineError where a score differs by more than its precision allows."""
    prompts = pl.DataFrame({"prompt_id": [f"{i:032}" for i in range(len(PROMPTS))], "text": PROMPTS})
    errors = compare(reference, candidate, prompts, watch)
    allowed = TOLERANCE[candidate.bundle.manifest.precision]
    bad = errors.filter(~(pl.col("largest_error") <= allowed))
    if not bad.is_empty():
        row = bad.row(0, named=True)
        raise EngineError(
            f"{row['score']} differs from torch by {row['largest_error']:.1e} ({row['kind']}), allowed {allowed:.0e}: "
            "the export is not faithful and was not kept"
        )
    return errors
