"""What a frozen text encoder must not know: which captions were memorized. Chance is an AUROC of .45 to .60."""

import numpy as np

from scanner.evidence.metrics import auroc
from scanner.evidence.text_alone import ridge_probe


def probe(features: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """AUROC of a ridge regression on features [n, d], cross-validated; a group is never in two folds."""
    return float(auroc(ridge_probe(features, label, group), label.astype(bool)))


def text_only(pooled: np.ndarray, hidden: np.ndarray, label: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """AUROCs of what the text alone tells: probes on the pooled embedding [n, d] and on the mean of the hidden states
    [n, L, d], and the pooled embedding's length, whichever way it points."""
    length = auroc(np.linalg.norm(pooled, axis=1), label.astype(bool))
    return {
        "probe, pooled": probe(pooled, label, group),
        "probe, hidden states": probe(np.concatenate([pooled, hidden.mean(1)], 1), label, group),
        "length": float(max(length, 1 - length)),
    }
