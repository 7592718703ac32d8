"""Images at a model's size, and what cannot be one."""

import io

import numpy as np
import pytest
from PIL import Image

from scanner.dataset import images
from scanner.diffusion.denoiser import Denoiser
from scanner.errors import InputError


def stored(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_a_wide_image_is_scaled_to_cover_and_cut_around_its_centre():
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, 8:16] = 255  # the middle third is all that an 8 x 8 cut shows
    found = images.decode(stored(Image.fromarray(picture)), 8, 8)
    assert found.shape == (3, 8, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1)


def test_transparency_lies_on_white_and_colours_keep_their_channels():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    np.testing.assert_allclose(images.decode(stored(clear), 4, 4), 1)
    red = images.decode(stored(Image.new("RGB", (4, 4), (255, 0, 0))), 4, 4)
    np.testing.assert_allclose(red.mean((1, 2)), [1, -1, -1])


def test_an_image_survives_png_to_the_last_level():
    image = np.linspace(-1, 1, 3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    np.testing.assert_allclose(images.decode(images.png(image), 4, 4), image, atol=1 / 127.5)


@pytest.mark.parametrize("data", [b"", b"no image", stored(Image.new("RGB", (64, 64)))[:60]])
def test_what_is_no_image_is_named(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: no readable image"):
        images.read(path, 8, 8)
    with pytest.raises(InputError, match="missing"):
        images.read(tmp_path / "missing.png", 8, 8)


def test_the_models_vae_takes_images_and_gives_them_back(bundle):
    denoiser = Denoiser(bundle)
    assert denoiser.image_size == (32, 32)
    grey = np.zeros((3, 3, 32, 32), np.float32)
    latent = denoiser.encode_images(grey)
    assert latent.shape == (3, *denoiser.latent_shape)
    assert np.abs(denoiser.decode(latent)).mean() < 0.1
