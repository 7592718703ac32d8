"""Write docs/bad-inputs.md: python -m tools.bad_inputs docs/bad-inputs.md."""

import sys
from pathlib import Path

from tools.bad_inputs import document

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
