"""Reports: contents, redacted or not, to a table of formats, each one function; and a table for the terminal."""

from scanner.report.contents import Contents, NullScores, contents_of, facts_of, redact
from scanner.report.formats import write
from scanner.report.terminal import table

__all__ = ["Contents", "NullScores", "contents_of", "facts_of", "redact", "table", "write"]
