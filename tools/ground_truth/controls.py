"""What a frozen text encoder must not know: which captions were memorized. Chance is an AUROC of .45 to .60."""

import numpy as np

from scanner.evidence.metrics import auroc

FOLDS, RIDGE = 5, 1.0


def probe(features: np.ndarray, label: np.ndarray, group: np.ndarray, seed: int = 0) -> float:
    """AUROC of a ridge regression on features [n, d], cross-validated; a group is never in two folds.

    Captions derived from one another (a template's, a retrieval picture's) share their label and most of their words:
    apart, they would tell the probe the answer.
    """
    names, member = np.unique(group, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, FOLDS, len(names))[member]
    score = np.zeros(len(label))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        mean, scale = features[train].mean(0), features[train].std(0) + 1e-6
        x, y = (features[train] - mean) / scale, label[train] - label[train].mean()
        ridge = RIDGE * len(x) * 0.1 * np.eye(x.shape[1])
        score[test] = (features[test] - mean) / scale @ np.linalg.solve(x.T @ x + ridge, x.T @ y)
    return float(auroc(score, label.astype(bool)))


def text_only(pooled: np.ndarray, hidden: np.ndarray, label: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """AUROCs of what the text alone tells: probes on the pooled embedding [n, d] and on the mean of the hidden states
    [n, L, d], and the pooled embedding's length, whichever way it points."""
    length = auroc(np.linalg.norm(pooled, axis=1), label.astype(bool))
    return {
        "probe, pooled": probe(pooled, label, group),
        "probe, hidden states": probe(np.concatenate([pooled, hidden.mean(1)], 1), label, group),
        "length": float(max(length, 1 - length)),
    }
