"""What computes: a model's one door, the scorer behind it, and what is prepared once per model and machine."""

from scanner.model.model import Model, Prepared
from scanner.model.scorer import Scorer

__all__ = ["Model", "Prepared", "Scorer"]
