"""The analytic denoiser: the exact posterior mean over a tiny training set, so that scores can be derived on paper.

For x_t = a*x0 + s*eps with x0 uniform over `images`, E[x0 | x_t] is a softmax-weighted mean of the images. A prompt is
a subset of the images; the empty prompt is all of them. It duck-types `scanner.diffusion.denoiser.Denoiser`.
"""

from dataclasses import dataclass

import numpy as np

from scanner.diffusion.prediction import Prediction
from scanner.diffusion.schedule import Schedule
from scanner.diffusion.start import start
from scanner.diffusion.trace import Trace, trace

SD = {
    "curve": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
    "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip
FLOW = SD | {"curve": "flow", "shift": 3.0, "set_alpha_to_one": True}  # signal_rate + noise_rate = 1
PREDICTION_TYPES = ["epsilon", "v_prediction", "flow"]
G = 7.5  # guidance scale
IMAGES = np.random.default_rng(7).standard_normal((6, 2, 4, 4)).astype(np.float32)


@dataclass(frozen=True)
class Subsets:
    """Conditioning: bool [B, n], which images a prompt names."""

    members: np.ndarray

    def __len__(self) -> int:
        return len(self.members)


class IdealDenoiser:
    batch_size = 64

    def __init__(self, images: np.ndarray, prediction_type: str = "epsilon"):
        self.images = images.astype(np.float64)  # [n, C, H, W]
        self.latent_shape = images.shape[1:]
        self.latent_std = float(np.sqrt(np.square(images - images.mean(0)).mean()))
        self.schedule = Schedule.from_manifest(FLOW if prediction_type == "flow" else SD, prediction_type)
        self.null = Subsets(np.ones((1, len(images)), bool))

    def encode(self, subsets: list[list[int]]) -> Subsets:
        members = np.zeros((len(subsets), len(self.images)), bool)
        for row, subset in enumerate(subsets):
            members[row, subset] = True
        return Subsets(members)

    def predict(self, x_t: np.ndarray, timestep: int, conditioning: Subsets) -> Prediction:
        a, s = self.schedule.signal_rate[timestep], self.schedule.noise_rate[timestep]
        x = x_t.reshape(*x_t.shape[:2], 1, -1).astype(np.float64)  # [B, S, 1, d]
        images = self.images.reshape(len(self.images), -1)  # [n, d]
        log_weight = -np.square(x - a * images).sum(-1) / (2 * s**2)  # [B, S, n]
        log_weight = np.where(conditioning.members[:, None], log_weight, -np.inf)
        weight = np.exp(log_weight - log_weight.max(-1, keepdims=True))
        x0 = ((weight / weight.sum(-1, keepdims=True)) @ images).reshape(x_t.shape)
        output = {  # what a network of this prediction type would put out; the schedule turns it back
            "epsilon": (x_t - a * x0) / s,
            "v_prediction": (a * x_t - x0) / s,  # v = a*eps - s*x0
            "flow": (x_t - x0) / s,  # eps - x0, with a = 1 - s
        }[self.schedule.prediction_type]
        return self.schedule.read(x_t, output.astype(np.float32), timestep)


def first_step(denoiser: IdealDenoiser, subsets, seeds=(0, 1), steps=1, guidance_scale=G) -> Trace:
    """The first steps of a prompt for each of `subsets`."""
    return trace(denoiser, denoiser.encode(subsets), start(denoiser, seeds, 50), guidance_scale, 50, steps)


def rates(some: Trace) -> tuple[float, ...]:
    """a_0, a_k, s_0, s_k of a trace of k + 1 steps, and k = a_k - a_0*s_k/s_0."""
    (a_0, a_k), (s_0, s_k) = some.signal_rate[[0, -1]], some.noise_rate[[0, -1]]
    return a_0, a_k, s_0, s_k, a_k - a_0 * s_k / s_0
