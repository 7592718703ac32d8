"""How prompts become what conditions a denoiser."""

import numpy as np
import pytest

from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import FAMILIES, family
from scanner.errors import ModelError


def test_a_prompt_that_is_too_long_is_cut_and_says_so(bundle):
    short, long = "a cat", "a cat " * 60
    conditioning = Denoiser(bundle).encode([short, long])
    assert conditioning.truncated.tolist() == [False, True]
    assert len(conditioning) == 2
    (embedding,) = conditioning.arrays.values()
    assert embedding.shape[0] == 2
    assert embedding.dtype == np.float32
    assert np.abs(embedding[0] - embedding[1]).max() > 0.1


def test_an_unknown_family_is_refused():
    assert family("stable-diffusion") is FAMILIES["stable-diffusion"]
    with pytest.raises(ModelError, match="model family 'sdxl': this overscan knows stable-diffusion"):
        family("sdxl")
