"""Reports: contents, redacted or not, to a table of formats, each one function; and a table for the terminal."""

from scanner.report.contents import Beside, Contents, Look, NullScores, contents_of, facts_of
from scanner.report.formats import write
from scanner.report.handover import hand_over
from scanner.report.redaction import Places, redact, redact_summary
from scanner.report.terminal import table

__all__ = [
    "Beside", "Contents", "Look", "NullScores", "Places", "contents_of", "facts_of", "hand_over", "redact",
    "redact_summary", "table", "write",
]  # fmt: skip
