"""Detectors of the literature, as their authors define them, on the same model and prompts as our scores.

One seed, 50 steps and guidance scale 7.5 where a name does not say otherwise. De, eps_c, eps_u: as in
`scanner.diffusion.scores`; X_g the guided clean estimate; J the derivative of the predicted noise by x_t.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.prediction import Array
from scanner.diffusion.start import Start, start
from scanner.diffusion.trace import Step, denoise
from scanner.errors import ScannerError
from scanner.evidence.similarity import WINDOW, ssim

GUIDANCE_SCALE, STEPS, SEEDS = 7.5, 50, (0, 1, 2, 3)
DEPTH = 10  # steps of the deepest detector that is no whole run
LOW_NOISE = 41  # timestep label of Asthana's cosine, on x_T itself
COSINE_WEIGHT = 2.0  # of Asthana's cosine beside the norm, both in their standard deviations over the list
STEP = 0.01  # of a central difference along a direction, in its own length
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Peer:
    """`passes`: UNet passes per prompt, what all prompts share left out; `source`: where it is defined."""

    passes: int
    source: str


WEN, JEON = "Wen et al., ICLR 2024", "Jeon et al., arXiv 2412.04140"
DSM, ASTHANA = "||eps_c(x_k+1) - eps_c(x_k)||", "Asthana, Belagiannis, arXiv 2601.20642"
PEERS: Mapping[str, Peer] = {
    "Wen": Peer(1, WEN),
    "Wen, 4 seeds": Peer(len(SEEDS), WEN),
    "Wen, second step": Peer(3, WEN),
    "Wen, 5 steps": Peer(9, WEN),
    "Wen, 10 steps": Peer(19, WEN),
    "Webster": Peer(1, "Webster, arXiv 2305.08694"),
    "DSM 0-1": Peer(2, DSM),
    "DSM 1-2": Peer(4, DSM),
    "Asthana's cosine": Peer(1, ASTHANA),
    "Asthana": Peer(2, ASTHANA),
    "Jeon": Peer(5, JEON),
    "Metric 2": Peer(3, JEON),
    "seeds' SSIM": Peer(len(SEEDS), "NeMo: Hintersdorf et al., NeurIPS 2024"),
    "Broken Memories": Peer(2 * STEPS - 1, "Huang et al., arXiv 2605.22050"),
}


@dataclass(frozen=True)
class Shared:
    """What the detectors share of all prompts: the first step of SEEDS, and predictions for the empty prompt."""

    denoiser: Denoiser
    first: Start
    low_noise: Array  # eps_u at LOW_NOISE on the first seed's x_T, [1, 1, C, H, W]
    pushed_uncond: Array  # J_u eps_u there at the first step, [1, 1, C, H, W]

    @classmethod
    def of(cls, denoiser: Denoiser) -> "Shared":
        """A few UNet passes. Raises ScannerError for a model whose first step starts where eps says nothing."""
        timestep = denoiser.schedule.timesteps(STEPS)[0]
        if not denoiser.schedule.in_eps(timestep):
            raise ScannerError(
                "the literature's detectors are defined on predicted noise, which says nothing at this model's first "
                "timestep: evaluate without --peers"
            )
        first = start(denoiser, SEEDS, STEPS)
        x_T, eps_uncond = first.x_T[None, :1], first.uncond.eps[None, :1]
        low_noise = denoiser.predict(x_T, LOW_NOISE, denoiser.null).eps
        pushed = _derivative(denoiser, x_T, timestep, denoiser.null, eps_uncond)
        return cls(denoiser, first, low_noise, pushed)

    def scores(self, prompts: Sequence[str]) -> dict[str, Floats]:
        """[B] for each detector of a few passes but Asthana's sum, which takes a list's standard deviations."""
        conditioning = self.denoiser.encode(prompts)
        walk = denoise(self.denoiser, conditioning, _one_seed(self.first), GUIDANCE_SCALE, STEPS)
        steps = list(islice(walk, DEPTH))
        De = np.stack([_norm(step.cond.eps - step.uncond.eps) for step in steps])  # [DEPTH, B]
        moved = [_norm(after.cond.eps - before.cond.eps) for before, after in pairwise(steps[:3])]
        seeds = self._all_seeds(conditioning, steps[0])
        wide, guided = seeds - self.first.uncond.eps, seeds + (GUIDANCE_SCALE - 1) * (seeds - self.first.uncond.eps)
        return {
            "Wen": De[0],
            "Wen, 4 seeds": np.sqrt(np.square(wide.astype(np.float64)).sum((2, 3, 4))).mean(1),
            "Wen, second step": De[1],
            "Wen, 5 steps": De[:5].mean(0),
            "Wen, 10 steps": De.mean(0),
            "Webster": self._webster(steps[0]),
            "DSM 0-1": moved[0],
            "DSM 1-2": moved[1],
            "Asthana's cosine": self._cosine(conditioning),
            "seeds' SSIM": _seeds_ssim(guided - self.first.x_T),
            **self._curvature(conditioning, steps[0]),
        }

    def lengths(self, prompts: Sequence[str]) -> Floats:
        """||x_t' - x_t|| of each step of a whole guided run, [B, STEPS]."""
        walk = denoise(self.denoiser, self.denoiser.encode(prompts), _one_seed(self.first), GUIDANCE_SCALE, STEPS)
        x_t = [step.x_t for step in walk]
        return np.stack([_norm(after - before) for before, after in pairwise(x_t)], 1)

    def _all_seeds(self, conditioning: Conditioning, first: Step) -> Array:
        """eps_c of the first step, [B, S, C, H, W], given that step for the first seed."""
        x_T = self.first.x_T[1:]
        x_T = np.broadcast_to(x_T, (len(conditioning), *x_T.shape))
        others = self.denoiser.predict(x_T, first.timestep, conditioning).eps
        return np.concatenate([first.cond.eps, others], axis=1)

    def _webster(self, step: Step) -> Floats:
        guided = self.denoiser.schedule.guided(step.x_t, step.cond, step.uncond, GUIDANCE_SCALE, step.timestep)
        return np.asarray(np.square((step.x_t - guided.x0).astype(np.float64)).mean((1, 2, 3, 4)))

    def _cosine(self, conditioning: Conditioning) -> Floats:
        """Mean over positions of the cosine over channels between eps_u and De, at LOW_NOISE on x_T itself."""
        x_T = np.broadcast_to(self.first.x_T[:1], (len(conditioning), 1, *self.first.x_T.shape[1:]))
        De = self.denoiser.predict(x_T, LOW_NOISE, conditioning).eps - self.low_noise
        lengths = np.linalg.norm(De, axis=2) * np.linalg.norm(self.low_noise, axis=2)
        along = (De * self.low_noise).sum(2) / np.maximum(lengths, 1e-12)  # [B, 1, H, W]
        return np.asarray(along.mean((1, 2, 3)), np.float64)

    def _curvature(self, conditioning: Conditioning, step: Step) -> dict[str, Floats]:
        """Jeon: ||(J_c - J_u) De||^2; Metric 2: ||J_c eps_c - J_u eps_u||^2; constants left out."""

        def along(direction: Array, given: Conditioning) -> Array:
            return _derivative(self.denoiser, step.x_t, step.timestep, given, direction)

        De = step.cond.eps - step.uncond.eps
        jeon = along(De, conditioning) - along(De, self.denoiser.null)
        metric = along(step.cond.eps, conditioning) - self.pushed_uncond
        return {"Jeon": np.square(_norm(jeon)), "Metric 2": np.square(_norm(metric))}


def broken_memories(lengths: Floats, ordinary: Floats) -> Floats:
    """Largest z-score of a step's length [B, STEPS] over the run, by mean and deviation of ordinary prompts' runs."""
    return np.asarray(((lengths - ordinary.mean(0)) / ordinary.std(0)).max(1))


def asthana(scores: Mapping[str, Floats]) -> Floats:
    """Norm plus COSINE_WEIGHT times the cosine, published "up to scale": here in standard deviations of the list."""
    norm, cosine = scores["Wen"], scores["Asthana's cosine"]
    return np.asarray(norm / norm.std() + COSINE_WEIGHT * cosine / cosine.std())


def _one_seed(first: Start) -> Start:
    return Start(first.x_T[:1], first.uncond.at(np.s_[:1]))


def _norm(x: Array) -> Floats:
    """Over a latent, of the first seed: [B, 1, C, H, W] to [B]."""
    return np.asarray(np.sqrt(np.square(x[:, 0].astype(np.float64)).sum((1, 2, 3))))


def _derivative(denoiser: Denoiser, x_t: Array, timestep: int, conditioning: Conditioning, along: Array) -> Array:
    """J times `along`: a central difference, two passes, of STEP of the direction's RMS in that of x_t."""
    size = np.sqrt(np.square(along).mean((2, 3, 4), keepdims=True))
    h = np.asarray(STEP / np.maximum(size, 1e-12), np.float32)
    ahead, behind = (denoiser.predict(x_t + sign * h * along, timestep, conditioning).eps for sign in (1, -1))
    return np.asarray((ahead - behind) / (2 * h))


def _seeds_ssim(change: Array) -> Floats:
    """Mean SSIM of the seeds' changes of the noise [B, S, C, H, W], each scaled to [-1, 1], over pairs of seeds.

    NaN for latents smaller than SSIM's window.
    """
    if min(change.shape[3:]) < WINDOW:
        return np.full(len(change), np.nan)
    low, high = change.min((2, 3, 4), keepdims=True), change.max((2, 3, 4), keepdims=True)
    scaled = 2 * (change - low) / (high - low) - 1
    pairs = np.triu_indices(change.shape[1], 1)
    return np.array([ssim(seeds, seeds)[pairs].mean() for seeds in scaled])
