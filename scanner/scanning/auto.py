"""A screen that is chosen: by what first passes are known to keep, and by what the last one lost on this very model.

Nobody knows which of a dataset's captions are memorized, but a sample of them gets all passes whatever the first
finds. Its highest by the full score stand for what all passes find; the share of them that the screen alone would have
kept is what the screen keeps. A screen that keeps less than is wanted is widened for the nights that come.
"""

import math
from dataclasses import replace

import numpy as np
import polars as pl

from engines import Manifest
from scanner.audit.screened import LEAST, Kept, kept
from scanner.audit.screens import SHARES, Choice, choose, read
from scanner.config import AutoScreen, Screen
from scanner.dataset.shards import sampled
from scanner.diffusion.scores import best_score
from scanner.errors import ScannerError
from scanner.model import Model
from scanner.model.usual import usual_timesteps
from scanner.scanning.request import Request
from scanner.store.ledger import Ledger
from scanner.store.record import Screening

FOUND = 0.01  # of a sample, the highest: what all passes find


def settled(request: Request) -> Request:
    """The request with a screen that is chosen, if it asks for one.

    The shards of a scan take the screen as it was last, so that all of them have the same. Raises ScannerError or
    EngineError.
    """
    asked = request.screen
    if not isinstance(asked, AutoScreen):
        return request
    full = request.full_model
    manifest, config = full.bundle.manifest, full.settled
    first = manifest if asked.model is None else Model(asked.model, request.backend, "auto").bundle.manifest
    _measured(manifest)
    choice = choose(read(asked.curves), asked.wanted, _side(first, manifest), asked.sample, full.passes)
    screen = Screen(
        choice.share, choice.score, asked.model, asked.precision, asked.sample, choice.told, asked.wanted,
        _in_words(choice, asked, full.passes),
    )  # fmt: skip
    found = request.screened_by(screen)
    if (ledger := request.begun) is None:
        return found
    screening = found.screening(full, found.first_model)
    if (former := _last(screening, ledger)) is None:
        return found
    score = best_score(config, bool(full.reference))
    wider, why = (former.share, "") if request.shard.count > 1 else widened(former, ledger, score)
    return found.screened_by(replace(screen, share=wider, why=f"{screen.why}{why}"))


def widened(former: Screening, ledger: Ledger, score: str) -> tuple[float, str]:
    """The share from now on, and why, in words; `score`: what all passes are ranked by."""
    assert former.wanted is not None
    found, needed = lost(former, ledger, score)
    if found.share is None:
        return former.share, f"; what it loses here is unknown yet, {found.flagged} of {LEAST} of a sample"
    low, high = found.interval
    said = (
        f"; here it kept {100 * found.share:.3g} % ({100 * low:.3g} to {100 * high:.3g} %) of the highest of a sample"
    )
    if high >= former.wanted:
        return former.share, said
    wider = next((share for share in SHARES if share > former.share and share >= needed), SHARES[-1])
    if wider <= former.share:
        return former.share, f"{said}, less than is wanted, at the widest share: scan without a screen"
    return wider, f"{said}, less than is wanted: widened from {former.share:g} to {wider:g}"


def lost(screening: Screening, ledger: Ledger, score: str) -> tuple[Kept, float]:
    """What a screen keeps of the highest of its sample, and the share of prompts that would have kept enough."""
    assert screening.wanted is not None
    with ledger.refusals():
        drawn = ledger.scores(screening.scan_id).filter(sampled(screening.sample), pl.col(score).is_finite())
        full = drawn.select("prompt_id", score).unique("prompt_id").collect(engine="streaming")
        first = ledger.scores(screening.first_scan_id).select("prompt_id", screening.score)
        highest = full.top_k(math.ceil(FOUND * len(full)), by=score)
        found = kept(highest, first, screening)
        both = first.join(full.lazy(), on="prompt_id", how="semi").unique("prompt_id").collect(engine="streaming")
    values = both[screening.score].to_numpy()
    top = both.join(highest, on="prompt_id", how="semi")[screening.score].to_numpy()
    if not len(top):
        return found, 1.0
    threshold = np.quantile(top, 1 - screening.wanted, method="lower")
    return found, float((values >= threshold).mean())


def _last(asked: Screening, ledger: Ledger) -> Screening | None:
    """The newest screening of the same scan that was chosen for the same, whatever its share came to."""
    for record in ledger.records():
        found = record.screening
        if found is not None and replace(found.asked, share=asked.share) == asked.asked:
            return found
    return None


def _measured(manifest: Manifest) -> None:
    """Refuse kinds of models that no table of screens speaks of."""
    if not usual_timesteps(manifest):
        side = "x".join(map(str, manifest.latent_shape[1:]))
        raise ScannerError(
            "screen auto: what a first pass keeps was measured on models that predict noise or v on Stable Diffusion's "
            f"schedule, told a timestep of less noise, and this one ({manifest.family}, latents of {side}) is told its "
            "sampler's first: name --screen SHARE"
        )


def _side(first: Manifest, full: Manifest) -> float:
    return math.sqrt(math.prod(first.latent_shape[1:]) / math.prod(full.latent_shape[1:]))


def _in_words(choice: Choice, asked: AutoScreen, passes: int) -> str:
    told = "" if choice.told is None else f", told {choice.told[0] if choice.told else 'the first timestep'},"
    of = "the models that overscan was measured on" if asked.curves is None else str(asked.curves)
    return (
        f"chosen to keep {asked.wanted:g} of what all passes find: the highest {choice.share:g} by "
        f"{choice.score}{told} keep {choice.kept:.3g} by {of}, for about {choice.price:.2f} passes instead of {passes}"
    )
