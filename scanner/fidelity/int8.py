"""An int8 bundle: its UNet quantised on real captions, and kept only if it ranks others as float32 does."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from engines import EngineError
from engines.interface import Arrays
from engines.quantize import quantize
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import FIRST_PASS_SCORES, best_score
from scanner.diffusion.start import initial_noise
from scanner.errors import InputError
from scanner.fidelity import check as fidelity
from scanner.model import Model

OBSERVED, CHECKED = 128, 128  # captions: to fit ranges to, to compare scores on
FIRST_SEED = 2_000_000  # and up: no scan's seeds, and not the prior's
FIRST_PASS = ScanConfig(seeds=(0,))  # what an int8 bundle is for
# of the score that such a pass screens by: fitted well, small models reach .990 to .999; fitted to one
# caption, to another timestep, to latents ten times as large or to noise for embeddings, the epsilon model .90 to .98
LEAST_RANK_CORRELATION = 0.98


def prompts_of(source: str) -> list[str]:
    """Captions to quantise with and to check on: the first unique ones of an input in the order of their ids.

    Raises InputError where there are too few.
    """
    needed = OBSERVED - 1 + CHECKED  # the empty prompt is observed too
    found = captions.unique_prompts(captions.read([source])).filter(status="to_score").sort("prompt_id")["text"]
    if len(found) < needed:
        raise InputError(
            f"{source}: {len(found):,} unique captions; int8 needs {needed}, {OBSERVED - 1} to quantise with and "
            f"{CHECKED} to check on: name captions like those to be scanned, such as the dataset itself"
        )
    return found.head(needed).to_list()


def export_int8(
    source: Path, out: Path, prompts: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> None:
    """Write an int8 bundle of the float32 bundle `source`. `prompts`: as of `prompts_of`.

    Raises EngineError where the first pass's scores are not ranked as in float32; nothing is left behind then.
    """
    checked = pl.DataFrame({"prompt_id": prompts[:CHECKED], "text": prompts[:CHECKED]})
    model = Model(source, "openvino", "float32", FIRST_PASS)
    ranked, told = best_score(model.settled, reference=False), model.settled.told
    expected, feeds = model.scorer()(checked), _feeds(model.denoiser, told, ["", *prompts[CHECKED:]])
    model.close()  # a large model is not held beside what is made of it

    def check(bundle: Path) -> None:
        scores = Model(bundle, "openvino", config=FIRST_PASS).scorer()(checked)
        if overflowed := len(scores.filter(status="non_finite")):
            raise EngineError(
                f"{overflowed} of {CHECKED} captions overflow in int8: it was not kept; screen with a float32 bundle"
            )
        found = fidelity.errors(expected, scores)
        found = found.filter(pl.col("score").is_in(FIRST_PASS_SCORES))
        for row in found.iter_rows(named=True):
            say(f"{row['score']}: rank correlation with float32 {row['rank_correlation']:.4f}")
        ranks = found.filter(score=ranked)["rank_correlation"].item()
        if not ranks >= LEAST_RANK_CORRELATION:
            raise EngineError(
                f"{ranked}: rank correlation {ranks:.3f} with float32 on {CHECKED} captions, needed "
                f"{LEAST_RANK_CORRELATION}: int8 is not faithful to this model and was not kept; name more fitting "
                "captions, or screen with a float32 bundle"
            )

    say(f"unet: to int8, by {len(feeds)} captions; minutes on a large model")
    quantize(source, out, feeds, check)


def _feeds(denoiser: Denoiser, told: Sequence[int], prompts: Sequence[str]) -> list[Arrays]:
    """What the UNet is fed at the first step, or `told` there, batch 1: each prompt with a noise of its own."""
    first, *_ = [*told, *denoiser.schedule.timesteps(FIRST_PASS.num_inference_steps)]
    timestep = np.array([denoiser.schedule.told(first)], denoiser.told_dtype)
    feeds: list[Arrays] = []
    for seed, text in enumerate(prompts, FIRST_SEED):
        x_T = initial_noise((seed,), denoiser.latent_shape)
        feeds.append({"sample": x_T, "timestep": timestep, **denoiser.encode([text]).arrays})
    return feeds
