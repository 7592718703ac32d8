"""Reports: contents, redacted or not, to a table of formats, each one function; and a table for the terminal."""

from scanner.audit.report.contents import Contents, NullScores, contents_of, facts_of, redact
from scanner.audit.report.files import write
from scanner.audit.report.terminal import table

__all__ = ["Contents", "NullScores", "contents_of", "facts_of", "redact", "table", "write"]
