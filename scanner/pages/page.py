"""Self-contained pages from a template: no request leaves them, and only the style and script that they hold run.

The security policy in the template names both by their hashes. Whatever else a template is given is escaped.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup

PRINTED = """
@media print { @page {
  margin: 15mm 15mm 17mm;
  @bottom-left { content: "%s"; font: 8pt sans-serif; color: #5c5a54; }
  @bottom-right { content: "page " counter(page) " of " counter(pages); font: 8pt sans-serif; color: #5c5a54; }
} }
"""
FOLDER = Path(__file__).parent
SHARED = FOLDER / "page.css"  # the style of every page
TEXT = re.compile(r"[\w .,:()-]*")  # that a style sheet can quote as it is


def render(template: Path, embedded: Mapping[str, str], footer: str, **values: object) -> str:
    """The page. `embedded`: files beside the template, of which it gets the text and, as NAME_hash, the hash.

    Its `style` follows the style of all pages. `footer`: of each printed page, beside its number.
    """
    assert TEXT.fullmatch(footer), "a footer is of plain words"
    for name, file in embedded.items():
        text = (template.parent / file).read_text("utf-8")
        if name == "style":
            text = SHARED.read_text("utf-8") + text + PRINTED % footer
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        values |= {name: Markup(text), f"{name}_hash": digest}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, FOLDER]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(values) + "\n"
