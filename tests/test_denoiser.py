"""Family, schedule and engines as one function, on the small model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from scanner.diffusion.denoiser import Denoiser, _engine, _reading, default_batch_size
from scanner.diffusion.start import initial_noise
from scanner.errors import ModelError

PROMPTS = ["a cat", "the moon over a harbour at night", "badger"]
TIMESTEP = 981
ROUNDING = {"rtol": 1e-3, "atol": 1e-3}  # of float32 in batches of other sizes


@pytest.fixture(scope="module")
def denoiser(bundle):
    return Denoiser(bundle)


@pytest.fixture(scope="module")
def x_t(denoiser):
    """Another noise for each prompt and seed, [3, 2, C, H, W]."""
    noise = initial_noise(range(6), denoiser.latent_shape)
    return noise.reshape(3, 2, *denoiser.latent_shape)


@pytest.fixture(scope="module")
def expected(denoiser, x_t):
    """Prediction by prediction."""
    rows = [
        [
            denoiser.predict(x_t[b : b + 1, s : s + 1], TIMESTEP, denoiser.encode([PROMPTS[b]])).eps[0, 0]
            for s in range(2)
        ]
        for b in range(3)
    ]
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 64])
def test_a_batch_equals_its_singles(bundle, x_t, expected, batch_size):
    denoiser = Denoiser(bundle, batch_size)
    np.testing.assert_allclose(denoiser.predict(x_t, TIMESTEP, denoiser.encode(PROMPTS)).eps, expected, **ROUNDING)


def test_one_prompt_serves_all(denoiser, x_t):
    alone = denoiser.predict(x_t, TIMESTEP, denoiser.encode(["badger"])).eps
    np.testing.assert_allclose(alone, denoiser.predict(x_t, TIMESTEP, denoiser.encode(["badger"] * 3)).eps, **ROUNDING)
    np.testing.assert_allclose(
        denoiser.predict(x_t, TIMESTEP, denoiser.null).eps,
        denoiser.predict(x_t, TIMESTEP, denoiser.encode([""])).eps,
        **ROUNDING,
    )


def test_predictions_change_with_the_timestep(denoiser, x_t):
    conditioning = denoiser.encode(PROMPTS)
    early, late = (denoiser.predict(x_t, timestep, conditioning).eps for timestep in (981, 1))
    assert np.abs(early - late).mean() > 0.1


def test_reading_says_which_characters_the_model_gets(denoiser):
    same, other, shouted = denoiser.read(["a red cat", "a red dog", "A red CAT"])
    assert same.ids == shouted.ids  # the tokenizer is one of lower case
    assert same.ids != other.ids
    assert ["a red cat"[start:end] for start, end in same.spans] == ["a", "red", "cat"]
    (empty,) = denoiser.read([""])
    assert empty.spans == ()
    assert len(empty.ids) == len(same.ids)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_images_are_made_in_parts_and_read_back(bundle, batch_size):
    denoiser = Denoiser(bundle, batch_size)
    latents = initial_noise(range(3), denoiser.latent_shape) * np.float32(0.5)
    images = denoiser.decode(latents)
    assert images.shape == (3, 3, *denoiser.image_size)
    for latent, image in zip(latents, images, strict=True):
        np.testing.assert_allclose(denoiser.decode(latent[None])[0], image, **ROUNDING)
    read = denoiser.encode_images(images)
    assert read.shape == latents.shape
    np.testing.assert_allclose(denoiser.encode_images(images[2:]), read[2:], **ROUNDING)


@pytest.mark.parametrize(
    ("latent_shape", "size"),
    [((4, 64, 64), 4), ((4, 32, 32), 16), ((4, 16, 16), 64), ((4, 8, 8), 64), ((16, 128, 128), 1)],
)
def test_default_batches_are_bounded_by_the_latents_size(latent_shape, size):
    assert default_batch_size(latent_shape) == size


def test_a_vae_gets_no_more_than_fits_the_latents_size(bundle):
    assert Denoiser(bundle, 1000).image_batch == default_batch_size(bundle.manifest.latent_shape)
    assert Denoiser(bundle, 3).image_batch == 3
    assert Denoiser(bundle).batch_size == default_batch_size(bundle.manifest.latent_shape)


def test_a_tokenizer_that_cannot_be_read_is_the_models_fault(bundle):
    with pytest.raises(ModelError, match="the bundle's tokenizer cannot be read"):
        Denoiser(replace(bundle, tokenizers={"tokenizer": "{}"}))


def test_an_engine_that_takes_or_gives_something_else_is_refused(bundle):
    class Other:
        folder = bundle.folder

        def engine(self, name):
            return SimpleNamespace(inputs={"sample": None}, outputs={"output": None})

    network = SimpleNamespace(takes=("sample", "timestep"), gives=("output",))
    with pytest.raises(ModelError, match="its unet takes sample; needed sample, timestep: export the model again"):
        _engine(Other(), "unet", network)
    network = SimpleNamespace(takes=("sample",), gives=("noise",))
    with pytest.raises(ModelError, match="its unet gives output; needed noise"):
        _engine(Other(), "unet", network)
    assert _engine(Other(), "unet", SimpleNamespace(takes=("sample",), gives=("output",))).outputs == {"output": None}


def test_a_prompt_of_several_tokenizers_is_read_as_far_as_the_furthest_reads():
    one = SimpleNamespace(ids=[5, 6, 0], offsets=[(0, 1), (1, 3), (0, 0)])
    other = SimpleNamespace(ids=[7, 8], offsets=[(0, 3), (3, 9)])
    assert _reading([one, other]) == ((5, 6, 0, 7, 8), ((0, 3), (3, 9)))
    assert _reading([other, one]) == ((7, 8, 5, 6, 0), ((0, 3), (3, 9)))
