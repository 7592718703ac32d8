"""What a prompt's first step points at, in a few numbers: sketches that point the same way lead to one image."""

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.trace import Trace

NAME = "sketch_v1"


def sketch(trace: Trace) -> NDArray[np.float16]:
    """float16 [B, SKETCH]: what the prompt changes in the first step's clean estimate, mean over seeds, projected.

    Whitened by the prior's covariance, as two pictures on one background are alike without it; then at random
    (Johnson and Lindenstrauss, 1984), so the cosine of two sketches is that of the whitened changes, with a standard
    error of (1 - cosine^2) / 8. Its length is about that of the mean, which is at most `overestimation_prior_v1`.
    """
    assert trace.prior is not None
    change = trace.text_estimate[0].mean(1)
    change = change.reshape(len(change), -1)  # [B, d]
    with np.errstate(over="ignore", invalid="ignore"):  # a prompt that overflows has no sketch
        return np.asarray(change @ trace.prior.projection, np.float16)
