"""Prompts as the token ids of one tokenizer, which pads and truncates them to its length."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

LONG = 16_384  # characters of a prompt that are looked at: 200 for each of 77 tokens


def tokenized(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[Encoding]:
    """The tokens of each prompt, cut to the tokenizer's length as it cuts them; the rest of a huge one is not read.

    The tokenizer takes 14 s for a megabyte, of which a model sees 77 tokens. A word gives one token or more, and no
    word changes those of another, so what follows as many words as there is room for tokens cannot count. Within a
    word byte pairs merge with near ones, so its beginning is what it would be with all of the word.
    """
    if tokenizer.truncation is None:
        return tokenizer.encode_batch(list(prompts))
    enough = _enough(tokenizer)
    return tokenizer.encode_batch([_beginning(prompt, enough) for prompt in prompts])


class Tokens(NamedTuple):
    """Token ids, int64 [B, L]; 0 where they pad the prompt, else 1, int64 [B, L]; whether a prompt was longer, [B]."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    truncated: NDArray[np.bool_]


def tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> Tokens:
    """What a text encoder gets of prompts."""
    encodings = tokenized(tokenizer, prompts)
    ids, mask = ([getattr(encoding, name) for encoding in encodings] for name in ("ids", "attention_mask"))
    truncated = np.array([bool(encoding.overflowing) for encoding in encodings])
    return Tokens(np.array(ids, np.int64), np.array(mask, np.int64), truncated)


def token_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of a text encoder without a mask: token ids, int64 [B, L], and whether a prompt was longer, [B]."""
    ids, _, truncated = tokens(tokenizer, prompts)
    return ids, truncated


def _beginning(prompt: str, enough: re.Pattern[str]) -> str:
    """As much of a prompt as its tokens can depend on."""
    if len(prompt) <= LONG:
        return prompt
    found = enough.match(prompt, 0, LONG)
    return prompt[: LONG if found is None else found.end()]


def _enough(tokenizer: Tokenizer) -> re.Pattern[str]:
    """So many words that there is no room for tokens of more; added tokens may hold blanks, so be several words."""
    added = tokenizer.get_added_tokens_decoder().values()
    assert tokenizer.truncation is not None
    words = (tokenizer.truncation["max_length"] + 1) * max([1, *(len(token.content.split()) for token in added)])
    return re.compile(rf"[ \t\n\r]*(?:[^ \t\n\r]++[ \t\n\r]++){{{words}}}")
