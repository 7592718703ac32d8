"""Huge prompts are cut before they are tokenised, with the same tokens as if they were not."""

import random
import time

import pytest
from small import BUNDLE
from tokenizers import AddedToken, Tokenizer

from scanner.diffusion.families import tokenized, tokens

LETTERS = (
    "abcdefghijklmnopqrstuvwxyz",
    "aab",
    "ab",
    "aeiou' ",
    "0123456789x",
    "éüßΣσς",
    "日本語の船",
    "!?.,-'",
    "a\u0301e\u0308 ",
    "🎉👩‍👩‍👧",
)
WORDS = ("a", "red", "barn's", "they'll", "<|endoftext|>", "(1girl)", "2,000", "kite", "—", "\u2003", "x" * 40)


@pytest.fixture(params=[16, 77])
def tokenizer(request):
    found = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    found.enable_truncation(request.param)
    found.enable_padding(length=request.param)
    return found


def huge(rng):
    """A text of 17,000 to 60,000 characters, of words or without a blank."""
    length = rng.randint(17_000, 60_000)
    if rng.random() < 0.5:
        letters = rng.choice(LETTERS)
        unit = "".join(rng.choice(letters) for _ in range(rng.choice((1, 2, 3, 7, 1000, length))))
        return (unit * (length // len(unit) + 1))[:length]
    gap = rng.choice((" ", " ", "\n", "   ", "\t", "", ", "))
    words = []
    while sum(map(len, words)) < length:
        words += rng.choices(WORDS, k=500)
    return rng.choice(("", "  ", "\n")) + gap.join(words)


def seen(encoding):
    return encoding.ids, encoding.offsets, encoding.attention_mask, bool(encoding.overflowing)


def test_a_cut_prompt_has_the_tokens_of_the_whole(tokenizer):
    texts = [huge(random.Random(seed)) for seed in range(24)]
    whole = tokenizer.encode_batch(texts)
    cut = tokenized(tokenizer, texts)
    assert [seen(encoding) for encoding in cut] == [seen(encoding) for encoding in whole]
    assert all(len(tokens._beginning(text, tokens._enough(tokenizer))) <= tokens.LONG for text in texts)


def test_added_tokens_of_several_words_count_as_one(tokenizer):
    tokenizer.add_tokens([AddedToken("<my old red barn>", normalized=False)])
    texts = ["<my old red barn> " * 2000, "<my old red barn>" * 2000, "x " * 9000]
    assert [seen(a) for a in tokenized(tokenizer, texts)] == [seen(b) for b in tokenizer.encode_batch(texts)]


def test_a_megabyte_takes_no_time(tokenizer):
    started = time.monotonic()
    (one, other, last) = tokenized(tokenizer, ["a" * 20_000_000, "a kite " * 1_000_000, "ok"])
    assert time.monotonic() - started < 5
    assert (bool(one.overflowing), bool(other.overflowing), bool(last.overflowing)) == (True, True, False)
