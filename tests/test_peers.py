"""Detectors of the literature: each against its definition on a small model's own modules."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engines import open_bundle
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise, trace
from scanner.evidence.peers import LOW_NOISE, PEERS, SEEDS, Shared, asthana, broken_memories

PROMPTS = ["a red kite", "two bells on a beach"]


@pytest.fixture(scope="module")
def opened(tiny):
    bundle = open_bundle(tiny, "torch")
    return bundle, Denoiser(bundle)


@pytest.fixture(scope="module")
def found(opened):
    return Shared.of(opened[1]).scores(PROMPTS)


def steps(opened, count):
    denoiser = opened[1]
    walk = denoise(denoiser, denoiser.encode(PROMPTS), start(denoiser, (0,), 50), 7.5, 50)
    return [next(walk) for _ in range(count)]


def norm(x):
    return np.linalg.norm(x[:, 0].reshape(len(x), -1).astype(np.float64), axis=1)


def test_every_detector_of_a_few_passes_is_computed(found):
    assert found.keys() == PEERS.keys() - {"Asthana", "Broken Memories"}
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(found, (2,))


def test_norms_of_several_steps_and_seeds(opened, found):
    denoiser = opened[1]
    De = [norm(step.cond.eps - step.uncond.eps) for step in steps(opened, 10)]
    for name, expected in {
        "Wen": De[0],
        "Wen, second step": De[1],
        "Wen, 5 steps": np.mean(De[:5], 0),
        "Wen, 10 steps": np.mean(De, 0),
    }.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    traced = trace(denoiser, denoiser.encode(PROMPTS), start(denoiser, SEEDS, 50), 7.5, 50, 1)
    np.testing.assert_allclose(found["Wen, 4 seeds"], SCORES["text_noise_norm_v1"](traced), rtol=1e-5)


def test_differences_of_consecutive_steps(opened, found):
    eps = [step.cond.eps for step in steps(opened, 3)]
    np.testing.assert_allclose(found["DSM 0-1"], norm(eps[1] - eps[0]), rtol=1e-4)
    np.testing.assert_allclose(found["DSM 1-2"], norm(eps[2] - eps[1]), rtol=1e-4)


def test_one_step_synthesis(opened, found):
    (first,) = steps(opened, 1)
    schedule = opened[1].schedule
    a, s = schedule.signal_rate[981], schedule.noise_rate[981]
    eps = first.uncond.eps + 7.5 * (first.cond.eps - first.uncond.eps).astype(np.float64)
    x0 = (first.x_t - s * eps) / a
    np.testing.assert_allclose(found["Webster"], np.square(first.x_t - x0).mean((1, 2, 3, 4)), rtol=1e-4)


def test_the_cosine_at_low_noise_on_the_starting_noise(opened, found):
    denoiser = opened[1]
    x_T = np.repeat(start(denoiser, (0,), 50).x_T[None], 2, axis=0)
    uncond = denoiser.predict(x_T, LOW_NOISE, denoiser.null).eps[:, 0]
    change = denoiser.predict(x_T, LOW_NOISE, denoiser.encode(PROMPTS)).eps[:, 0] - uncond
    pixels = [[pair.reshape(pair.shape[0], -1).T for pair in one] for one in zip(change, uncond, strict=True)]
    expected = [
        np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(*one, strict=True)]) for one in pixels
    ]
    np.testing.assert_allclose(found["Asthana's cosine"], expected, rtol=1e-4, atol=1e-6)
    both = asthana({"Wen": np.array([1.0, 3.0]), "Asthana's cosine": np.array([0.5, 0.1])})
    np.testing.assert_allclose(both, [1 / 1 + 2 * 0.5 / 0.2, 3 / 1 + 2 * 0.1 / 0.2])


def test_derivatives_are_those_of_the_network(opened, found):
    """By torch.func.jvp on the modules themselves, where ours take central differences of any engine."""
    bundle, denoiser = opened
    unet, schedule = bundle.engine("unet").module, denoiser.schedule
    conditioning = torch.tensor(denoiser.encode([*PROMPTS, ""]).arrays["encoder_hidden_states"])
    x_T = torch.tensor(start(denoiser, (0,), 50).x_T)
    at, a, s = torch.tensor([981]), float(schedule.signal_rate[981]), float(schedule.noise_rate[981])

    def eps(x, hidden):
        output = unet(x, at, hidden[None])
        return output if schedule.prediction_type == "epsilon" else s * x + a * output

    def along(x, hidden, direction):
        return torch.func.jvp(lambda x: eps(x, hidden), (x,), (direction,))[1]

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused one has no forward derivative
        uncond = eps(x_T, conditioning[2])
        for i in range(len(PROMPTS)):
            cond = eps(x_T, conditioning[i])
            De = cond - uncond
            jeon = along(x_T, conditioning[i], De) - along(x_T, conditioning[2], De)
            metric = along(x_T, conditioning[i], cond) - along(x_T, conditioning[2], uncond)
            assert found["Jeon"][i] == pytest.approx(float(jeon.square().sum()), rel=0.02)
            assert found["Metric 2"][i] == pytest.approx(float(metric.square().sum()), rel=0.02)


def test_lengths_of_a_whole_run_and_their_largest_deviation(opened):
    denoiser = opened[1]
    lengths = Shared.of(denoiser).lengths(PROMPTS)
    x = [step.x_t for step in denoise(denoiser, denoiser.encode(PROMPTS), start(denoiser, (0,), 50), 7.5, 50)]
    np.testing.assert_allclose(lengths, np.stack([norm(x[i + 1] - x[i]) for i in range(50)], 1), rtol=1e-4)
    ordinary = np.array([[1.0, 4.0], [3.0, 8.0]])  # means 2 and 6, deviations 1 and 2
    np.testing.assert_allclose(broken_memories(np.array([[5.0, 6.0], [1.0, 11.0]]), ordinary), [3.0, 2.5])
