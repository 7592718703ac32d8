"""What the text alone tells, without any UNet: a warning light beside every figure of detection.

A frozen text encoder cannot know what the UNet was shown. Where these stand out of chance, an AUROC of .45 to .60, the
list's memorized captions are told by their wording or length, and a detector's lead on it may be no more than that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.denoiser import Denoiser

Floats = NDArray[np.float64]
FOLDS, RIDGE = 5, 0.1  # of the probe: the penalty is RIDGE for each prompt, on features of variance 1


def features(denoiser: Denoiser, prompts: Sequence[str]) -> Floats:
    """[n, 1 + d]: the number of tokens that the model reads, and the embedding, averaged over tokens."""
    tokens = np.array([[len(reading.spans)] for reading in denoiser.read(prompts)], np.float64)
    arrays = denoiser.encode(prompts).arrays.values()
    parts = [array.mean(1) if array.ndim == 3 else array.reshape(len(prompts), -1) for array in arrays]
    return np.concatenate([tokens, *(part.astype(np.float64) for part in parts)], axis=1)


def text_alone(found: Floats, label: NDArray[np.bool_], cluster: NDArray[np.generic]) -> dict[str, Floats]:
    """Scores [n] of a labelled list from its `features`; the probe is trained on the labels, cross-validated."""
    tokens, embedding = found[:, 0], found[:, 1:]
    centred = (embedding - embedding.mean(0)).astype(np.float32)
    whitened = Covariance.of(centred, len(centred) - 1).distance(centred)
    return {
        "caption length in tokens": tokens,
        "embedding length": np.linalg.norm(embedding, axis=1),
        "embedding length, whitened": whitened.astype(np.float64),
        "ridge probe on the embedding": ridge_probe(embedding, label, cluster),
    }


def ridge_probe(embedding: Floats, label: NDArray[np.bool_], cluster: NDArray[np.generic], seed: int = 0) -> Floats:
    """What a ridge regression on features [n, d] predicts for each, never trained on its cluster.

    Captions derived from one another share their label and most of their words: apart, they would tell the probe the
    answer.
    """
    names, member = np.unique(cluster, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, FOLDS, len(names))[member]
    score = np.zeros(len(label))
    for train, test in ((fold != k, fold == k) for k in range(FOLDS)):
        mean, scale = embedding[train].mean(0), embedding[train].std(0) + 1e-6
        x, y = (embedding[train] - mean) / scale, label[train] - label[train].mean()
        penalty = RIDGE * len(x) * np.eye(x.shape[1])
        score[test] = (embedding[test] - mean) / scale @ np.linalg.solve(x.T @ x + penalty, x.T @ y)
    return score
