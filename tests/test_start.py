"""What all prompts share: the prior and a reference, with the analytic denoiser."""

import numpy as np
import pytest
from ideal import IMAGES, PREDICTION_TYPES, G, IdealDenoiser

from scanner.diffusion.start import predict_prior, predict_reference, start
from scanner.diffusion.trace import trace
from scanner.errors import ScannerError


@pytest.fixture(params=PREDICTION_TYPES)
def denoiser(request):
    return IdealDenoiser(IMAGES, request.param)


def test_reference_does_not_depend_on_its_chunks(denoiser):
    first = start(denoiser, (0, 1), 50)
    captions = [[i, (i + 1) % 6] for i in range(6)]
    whole = predict_reference(denoiser, captions, first, 50)
    denoiser.batch_size = 8  # 4 captions at once
    parts = predict_reference(denoiser, captions, first, 50)
    np.testing.assert_allclose(whole.cond, parts.cond, atol=1e-6)
    each = trace(denoiser, denoiser.encode(captions), first, G, 50, 1).told[0]
    np.testing.assert_allclose(whole.mean, each.mean(0), atol=1e-6)


def test_a_reference_that_overflows_is_refused():
    broken = IdealDenoiser(IMAGES)
    first = start(broken, (0,), 50)
    broken.images[2] = np.inf
    with np.errstate(all="ignore"), pytest.raises(ScannerError, match="2 of 2 reference captions overflow"):
        predict_reference(broken, [[2], [0, 2]], first, 50)
    with np.errstate(all="ignore"), pytest.raises(ScannerError, match="the empty prompt's predictions overflow"):
        predict_prior(broken, 50)
