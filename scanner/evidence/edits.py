"""A caption as deletable words, and the scores of what is left of it."""

import re
from collections.abc import Callable, Iterable, Sequence

import polars as pl

from scanner.diffusion.denoiser import Reading
from scanner.diffusion.start import Watch
from scanner.model.scorer import Scorer

Deleted = frozenset[int]  # positions of words
NOTHING: Deleted = frozenset()
Read = Callable[[Sequence[str]], list[Reading]]


class Caption:
    """A caption as `pieces`, which joined are its text: each word with the blanks after it.

    Words are what blanks separate; of a caption that is one word, each piece is what one token covers, the last one
    with all that the tokenizer's length cuts off.
    """

    def __init__(self, read: Read, text: str):
        self.text, self._read = text, read
        words = re.findall(r"\s*\S+\s*", text)
        self.pieces: list[str] = words if len(words) > 1 else self._tokens()

    def without(self, deleted: Deleted) -> str:
        """The caption as somebody would write it without these words; what stays is unchanged, blanks included."""
        return "".join(piece for i, piece in enumerate(self.pieces) if i not in deleted).strip()

    def read(self, deleted: Deleted) -> list[int]:
        """Positions of the words of the edited caption that the model reads, in whole or in part.

        Of a caption longer than the tokenizer's length, deleting some words lets others in.
        """
        (reading,) = self._read([self.without(deleted)])
        end = reading.spans[-1][1] if reading.spans else 0
        found, start = [], 0
        for i, piece in enumerate(self.pieces):
            if i not in deleted:
                found += [i] if start < end else []
                start += len(piece)
        return found

    def singles(self) -> list[Deleted]:
        """The deletions of one word that the model reads."""
        return [frozenset({i}) for i in self.read(NOTHING)]

    def _tokens(self) -> list[str]:
        (reading,) = self._read([self.text])
        starts = sorted({start for start, _ in reading.spans} | {0})  # several tokens may share a character
        return [self.text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


class EditedScores:
    """One score of many texts. Texts that are one to the model, having the same tokens, are scored once."""

    def __init__(self, scorer: Scorer, score: str, watch: Watch):
        self._scorer, self._score, self._watch = scorer, score, watch
        self._ids: dict[str, tuple[int, ...]] = {}
        self._scores: dict[tuple[int, ...], float | None] = {}

    def __call__(self, text: str) -> float | None:
        """The score of a text that was added; None where it is not finite."""
        return self._scores[self._ids[text]]

    def unknown(self, texts: Iterable[str]) -> int:
        """How many captions adding these texts would score."""
        return len(self._new(texts))

    def add(self, texts: Iterable[str]) -> None:
        """Score those that are new."""
        new = list(self._new(texts).items())
        total = len(self._scores) + len(new)
        for at in range(0, len(new), self._scorer.chunk):
            self._watch("explain", len(self._scores), total)
            ids, chunk = zip(*new[at : at + self._scorer.chunk], strict=True)
            keys = [str(i) for i in range(len(ids))]
            found = self._scorer(pl.DataFrame({"prompt_id": keys, "text": chunk}))
            value = pl.col(self._score)
            self._scores |= dict(
                zip(ids, found.select(pl.when(value.is_finite()).then(value)).to_series(), strict=True)
            )
        self._watch("explain", total, total)

    def _new(self, texts: Iterable[str]) -> dict[tuple[int, ...], str]:
        unread = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if unread:
            self._ids |= zip(unread, (reading.ids for reading in self._scorer.denoiser.read(unread)), strict=True)
        return {self._ids[text]: text for text in dict.fromkeys(texts) if self._ids[text] not in self._scores}
