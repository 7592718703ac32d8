"""What overscan wrote, so that a folder that holds its store or report is not read back as captions."""

import re
from collections.abc import Sequence

from deltalake import DeltaTable

from scanner.dataset.readers.columns import Reader, frame_of
from scanner.dataset.readers.tables import is_readable

WRITTEN = "written by overscan"
STORE = "overscan store"  # what the description of a store's tables begins with
DOCUMENT = re.compile(rb'"format": ?"overscan |"prompt_id": ?"[0-9a-f]{32}"')  # in the beginning of our JSON files
ROWS = ["file", "row"]  # the columns of a report's rows to drop
PROMPT_ID = "^[0-9a-f]{32}$"


def is_document(head: bytes) -> bool:
    """Whether a JSON file with this beginning is one of ours."""
    return DOCUMENT.search(head) is not None


def is_store(folder: str) -> bool:
    """Whether a Delta table is one of a store."""
    if not is_readable(folder):
        return False
    try:
        return (DeltaTable(folder).metadata().description or "").startswith(STORE)
    except Exception:  # whatever is wrong with it shows where it is read
        return False


def is_table(source: str, read: Reader, names: Sequence[str]) -> bool:
    """Whether a table with these columns is one of ours: it has ids of prompts, or rows to drop."""
    if list(names) == ROWS:
        return True
    if "prompt_id" not in names:
        return False
    try:
        first = next((frame_of(batch)["caption"] for batch in read(source, "prompt_id").batches()), None)
    except Exception:  # as above
        return False
    return first is not None and len(first) > 0 and bool(first.str.contains(PROMPT_ID).all())
