"""What stores hold, to be compared."""

from scanner import read_store


def by_id(store, scan_id=None):
    """The scores of a scan, the newest if none is named, in an order that no run decides."""
    return read_store(store, scan_id).scores.sort("prompt_id")
