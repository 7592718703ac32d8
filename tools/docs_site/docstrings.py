"""For the site: examples of docstrings as code, which Markdown would take for quotations."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)  # up to a blank line


class Examples(griffe.Extension):
    """Fences around what begins with >>>."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Change the docstring of each object that is read."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
