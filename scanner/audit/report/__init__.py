"""Reports: a table of formats, each one function, and a table for the terminal."""

from scanner.audit.report.files import write
from scanner.audit.report.terminal import table

__all__ = ["table", "write"]
