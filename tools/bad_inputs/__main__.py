"""Write the page and the table into a folder: python -m tools.bad_inputs docs."""

import sys
from pathlib import Path

from tools.bad_inputs import page, rows, table

if __name__ == "__main__":
    folder, asked = Path(sys.argv[1]), list(rows())
    (folder / "bad-inputs.md").write_text(page(asked))
    (folder / "bad-inputs.csv").write_text(table(asked))
