"""Overscan: find the captions that a text-to-image diffusion model has likely memorized.

`scan` scores captions, `read_store` reads the newest scan back, `rank` and `sources` turn scores into flagged rows.
"""

import sys
from pathlib import Path

from scanner.origin import elsewhere

# first, as whatever follows would fail oddly; the command imports before it can catch anything, so it is ended here as
# `scanner.cli` ends it: with words, and the exit code of a broken installation
if _other := elsewhere("engines", Path(__file__).parent.parent):
    _said = (
        f"`engines` would come from {_other}; overscan's own lies in {Path(__file__).parent.parent}: take the other's "
        "folder off PYTHONPATH, or rename it where it is the working directory's"
    )
    if Path(sys.argv[0]).stem != "overscan":
        raise ImportError(_said)
    print(f"error: {_said}", file=sys.stderr)
    sys.exit(4)

# isort: split
from engines import EngineError
from scanner.audit.rank import Rule, rank, sources
from scanner.config import ScanConfig
from scanner.diffusion.start import initial_noise
from scanner.errors import ScannerError
from scanner.model import Model
from scanner.scanning.result import ScanResult
from scanner.scanning.run import scan
from scanner.store.stored import StoredScan, read_store

__all__ = [
    "EngineError",
    "Model",
    "Rule",
    "ScanConfig",
    "ScanResult",
    "ScannerError",
    "StoredScan",
    "initial_noise",
    "rank",
    "read_store",
    "scan",
    "sources",
]
