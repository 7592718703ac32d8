"""Every id and fingerprint: blake2b-128, in hexadecimal, of one canonical form.

Equal on every machine and version of the libraries, so never a hash of Python or Polars.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 8  # characters of an id that may stand for all of them


def digest(data: bytes) -> str:
    """blake2b-128 in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def identity(what: Mapping[str, Any]) -> str:
    """Of the canonical JSON: keys sorted, no blanks."""
    return digest(json.dumps(what, sort_keys=True, separators=(",", ":")).encode())


def prompt_id(text: str | None) -> str:
    """Of a prompt's text, as `scanner.dataset.captions.as_prompt` makes it; 32 zeros for null."""
    return prompt_id_of_bytes(None if text is None else text.encode())


def prompt_id_of_bytes(utf8: bytes | None) -> str:
    """`prompt_id` of a text that is encoded already."""
    return "0" * 32 if utf8 is None else digest(utf8)


def captions_fingerprint(captions: Sequence[str]) -> str:
    """Of a list of captions, in any order."""
    return digest("\0".join(sorted(captions)).encode())


def shown(identifier: str) -> str:
    """The first characters of an id, as people see it."""
    return identifier[:LEAST]
