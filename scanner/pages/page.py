"""Self-contained pages from a template: no request leaves them, and only the style and script that they hold run.

The security policy in the template names both by their hashes. Whatever else a template is given is escaped.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup


def render(template: Path, embedded: Mapping[str, str], **values: object) -> str:
    """The page. `embedded`: files beside the template, of which it gets the text and, as NAME_hash, the hash."""
    for name, file in embedded.items():
        text = (template.parent / file).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        values |= {name: Markup(text), f"{name}_hash": digest}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(values) + "\n"
