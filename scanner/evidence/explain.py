"""Which words trigger memorization, and the smallest deletion that ends it: a scan of edited captions.

The importance of a word is score(caption) - score(caption without it), under the settings of the scan. It is neither a
gradient nor an attention weight, and importances do not add up: of two words that each suffice, neither seems to
matter. Every number is the score of a text that somebody could write into the dataset.
This module does not know whether an edited caption still describes its image, nor what the model generates for it: a
score under a threshold is *not flagged*, which is not *not memorized*.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, isfinite

import polars as pl

from scanner.dataset import captions
from scanner.diffusion.scores import ABSOLUTE, RELATIVE
from scanner.diffusion.start import Watch, unwatched
from scanner.errors import ScannerError
from scanner.evidence.edits import NOTHING, Caption, Deleted, EditedScores
from scanner.model.scorer import Scorer

SHORTLIST = 12  # words that the search goes on with where no single one suffices: the most important ones
MOST_DELETED = 8  # a caption that needs more is better dropped than rewritten

Value = Callable[[Deleted], float | None]  # the score of a caption without these words
Search = Generator[list[Deleted], None, tuple[Deleted, bool] | None]  # yields what it needs scored


@dataclass(frozen=True)
class Word:
    """A word of a caption; of a caption that is one word, what each of its tokens covers.

    `read`: it lies within the tokenizer's length. `score`: the caption's without it; `importance`: how much lower that
    is. Both are None where the score is not finite. A word that is not read has importance 0.
    """

    text: str
    read: bool
    score: float | None
    importance: float | None


@dataclass(frozen=True)
class Variant:
    """A caption without the words at the positions `deleted`."""

    deleted: tuple[int, ...]
    text: str
    score: float | None


@dataclass(frozen=True)
class Edit:
    """A variant under the threshold. `smallest`: no deletion of fewer words is; else only: none of these can stay."""

    deleted: tuple[int, ...]
    text: str
    score: float
    smallest: bool


@dataclass(frozen=True)
class Explanation:
    """A caption explained. `status`: `scored`, or why it has neither `score` nor `words`.

    `edit`: None where the caption is under the threshold already, where there is no threshold, and where no deletion
    of up to MOST_DELETED words was found. `tried`: every variant that was considered, in order.
    """

    prompt_id: str
    text: str
    status: str
    score: float | None = None
    words: tuple[Word, ...] = ()
    edit: Edit | None = None
    tried: tuple[Variant, ...] = ()


def under(score: float | None, threshold: float) -> bool:
    """Whether a score is under the threshold by more than rounding, so in whatever batch it is scored again."""
    return score is not None and score < threshold - ABSOLUTE - RELATIVE * abs(threshold)


def most(words: int) -> int:
    """Upper bound on the variants that the search scores after the single deletions."""
    kept = min(words, SHORTLIST)
    searched = (MOST_DELETED - 1) * kept + comb(kept, 2) + sum(range(3, MOST_DELETED + 1))
    return min(searched, 2**words - words - 2) if 1 < words < SHORTLIST else searched * (words > 1)


def explain(
    scorer: Scorer,
    texts: Sequence[str],
    score: str,
    threshold: float | None = None,
    announce: Callable[[int, int], None] = lambda variants, more: None,
    watch: Watch = unwatched,
) -> list[Explanation]:
    """Explain each unique caption of `texts` by one of SCORES, in their order.

    `threshold`: search for deletions under it. `announce(variants, more)` hears, before anything is scored, how many
    captions will be, and how many more the search needs at most; `watch` of every chunk, the total being what is known
    to be needed. Raises ScannerError where no caption has the score.
    """
    if threshold is not None and not isfinite(threshold):
        raise ScannerError(f"threshold {threshold}: needed a finite number")
    prompts = captions.unique_prompts(pl.LazyFrame({"text": texts}).select(text=captions.as_prompt(pl.col("text"))))
    cases = [Caption(scorer.denoiser.read, text) for text in prompts.filter(status="to_score")["text"]]
    scores = EditedScores(scorer, score, watch)
    whole_and_singles = [case.without(deleted) for case in cases for deleted in (NOTHING, *case.singles())]
    announce(
        scores.unknown(whole_and_singles), 0 if threshold is None else sum(most(len(case.pieces)) for case in cases)
    )
    explained = _side_by_side([_explain(case, scores, threshold) for case in cases], scores)
    if cases and all(found.score is None for found in explained):
        raise ScannerError(
            f"no caption has {score}: give what it needs (two seeds or more, --reference, --base-model, --timesteps, "
            "or more --first-steps; see docs/scores.md), or name another --score"
        )
    by_text = {found.text: found for found in explained}
    return [
        replace(by_text.get(text, Explanation("", text, status)), prompt_id=prompt_id)
        for prompt_id, text, status in prompts.select("prompt_id", "text", "status").iter_rows()
    ]


def variants(explanations: Iterable[Explanation]) -> pl.DataFrame:
    """Every variant: [prompt_id, text, deleted, variant, score, importance], the whole caption first.

    `deleted`: positions of words from 0; `importance`: of these words together.
    """
    rows = [
        (found.prompt_id, found.text, list(variant.deleted), variant.text, variant.score)
        for found in explanations
        for variant in found.tried
    ]
    strings = dict.fromkeys(("prompt_id", "text"), pl.String())
    schema = {**strings, "deleted": pl.List(pl.UInt32), "variant": pl.String(), "score": pl.Float32()}
    whole = pl.col("score").first().over("prompt_id")
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(importance=whole - pl.col("score"))


def _side_by_side(
    running: Iterable[Generator[list[str], None, Explanation]], scores: EditedScores
) -> list[Explanation]:
    """Run the searches round by round, so that the variants of all captions share UNet batches."""
    waiting, finished = dict(enumerate(running)), {}
    while waiting:
        wanted: list[str] = []
        for i, search in list(waiting.items()):
            try:
                wanted += next(search)
            except StopIteration as done:
                finished[i] = done.value
                del waiting[i]
        scores.add(wanted)
    return [finished[i] for i in sorted(finished)]


def _explain(
    caption: Caption, scores: EditedScores, threshold: float | None
) -> Generator[list[str], None, Explanation]:
    """One caption: yields the texts that it needs scored next."""
    tried: dict[Deleted, Variant] = {}
    search = _search(caption, lambda deleted: scores(caption.without(deleted)), threshold)
    while True:
        try:
            asked = next(search)
        except StopIteration as done:
            found: tuple[Deleted, bool] | None = done.value
            break
        yield [caption.without(deleted) for deleted in asked]
        for deleted in asked:
            text = caption.without(deleted)
            tried[deleted] = Variant(tuple(sorted(deleted)), text, scores(text))
    full = tried[NOTHING].score
    if full is None:
        return Explanation("", caption.text, "non_finite")
    edit = None
    if found is not None:
        variant = tried[found[0]]
        assert variant.score is not None
        edit = Edit(variant.deleted, variant.text, variant.score, smallest=found[1])
    return Explanation("", caption.text, "scored", full, _words(caption, full, tried), edit, tuple(tried.values()))


def _words(caption: Caption, full: float, tried: dict[Deleted, Variant]) -> tuple[Word, ...]:
    words = []
    for i, piece in enumerate(caption.pieces):
        variant = tried.get(frozenset({i}))
        score = full if variant is None else variant.score
        words.append(Word(piece.strip(), variant is not None, score, None if score is None else full - score))
    return tuple(words)


def _search(caption: Caption, value: Value, threshold: float | None) -> Search:
    """The fewest words whose deletion brings the score under the threshold, and whether surely no fewer do.

    All single words, then greedily one more; where two are not enough, all pairs of the shortlist; after that the words
    that turn out not to be needed are put back.
    """
    yield [NOTHING]
    full = value(NOTHING)
    if full is None:
        return None
    yield (singles := caption.singles())
    n = len(caption.pieces)
    if threshold is None or full < threshold or n == 1 or not singles:
        return None
    ranked = [i for single in sorted(singles, key=lambda deleted: _order(value, deleted)) for i in single]
    best = _lowest(singles, value)
    while not under(value(best), threshold):
        if len(best) == min(MOST_DELETED, n - 1):
            return None
        let_in = [i for i in caption.read(best) if i not in ranked]
        left = [i for i in [*let_in, *ranked] if i not in best]
        yield (grown := [best | {i} for i in left[:SHORTLIST]])
        best = _lowest(grown, value)
        if len(best) == 2 and not under(value(best), threshold):
            yield (pairs := [frozenset(pair) for pair in combinations(ranked[:SHORTLIST], 2)])
            best = _lowest([best, *pairs], value)
    while len(best) > 2:
        yield (fewer := [best - {i} for i in sorted(best)])
        if not under(value(_lowest(fewer, value)), threshold):
            break
        best = _lowest(fewer, value)
    every_pair = len(ranked) == n <= SHORTLIST
    return best, len(best) <= 2 + every_pair


def _order(value: Value, deleted: Deleted) -> tuple[float, list[int]]:
    score = value(deleted)
    return float("inf") if score is None else score, sorted(deleted)


def _lowest(candidates: Iterable[Deleted], value: Value) -> Deleted:
    return min(candidates, key=lambda deleted: _order(value, deleted))
