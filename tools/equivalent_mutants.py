"""Mutants that no test can tell from the original, or that no test should, each with the reason: `tools/mutate.py`."""

EQUIVALENT: dict[str, str] = {}
