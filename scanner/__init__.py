"""Overscan: find the captions that a text-to-image diffusion model has likely memorized.

`scan` scores captions, `read_store` reads the newest scan back, `rank` and `sources` turn scores into flagged rows.
"""

import scanner.whose  # noqa: F401  # isort: split
from engines import EngineError, open_bundle
from scanner.audit.flag import Rule, rank, sources
from scanner.config import ScanConfig
from scanner.diffusion.trace import initial_noise
from scanner.errors import ScannerError
from scanner.scan import ScanResult, scan
from scanner.stored import StoredScan, read_store

__all__ = [
    "EngineError",
    "Rule",
    "ScanConfig",
    "ScanResult",
    "ScannerError",
    "StoredScan",
    "initial_noise",
    "open_bundle",
    "rank",
    "read_store",
    "scan",
    "sources",
]
