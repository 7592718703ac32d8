"""The cores that this process may use."""

import os


def usable_cores() -> int:
    """How many: those of the process where the system tells, else the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
