"""Where what can be made again is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/overscan, or ~/.cache/overscan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overscan"
