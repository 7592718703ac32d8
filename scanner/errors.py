"""What can stop a run, each with its exit code."""


class ScannerError(Exception):
    """A bad run: what was found, what was needed, where, and what to do next."""

    exit_code = 2


class InputError(ScannerError):
    """The captions cannot be read as asked."""


class StoreError(ScannerError):
    """The store is not ours, or does not hold what was asked."""
