"""Findings: who is grouped with whom, by hand, at size, and against what the small model truly memorized."""

import time
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, LABELS

from scanner.audit import findings
from scanner.audit.findings import group
from scanner.config import ScanConfig
from scanner.diffusion.sketch import sketch
from scanner.model import Model


def held(vectors):
    """Prompts 0, 1, ... in order of rank, and their sketches."""
    ids = [f"{i:032x}" for i in range(len(vectors))]
    flagged = pl.DataFrame({"rank": range(1, len(ids) + 1), "prompt_id": ids})
    packed = [np.asarray(vector, "<f2").tobytes() for vector in vectors]
    return flagged, pl.DataFrame({"prompt_id": ids, "sketch_v1": packed}, schema_overrides={"sketch_v1": pl.Binary})


def led(found):
    """For each prompt, the number of the one that leads its finding."""
    return [int(finding, 16) for finding in found["finding_id"]]


def at(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_a_prompt_joins_the_finding_that_it_resembles_most():
    """ALIKE is 36.9 degrees. The fourth resembles the first and the second; the last resembles only what joined."""
    flagged, sketches = held([at(0), at(60), at(-30), at(35), at(90), [0, 0], at(-60)])
    assert led(group(flagged, sketches)) == [0, 1, 0, 1, 1, 5, 6]


def test_groups_do_not_depend_on_lengths_order_of_rows_or_blocks(monkeypatch):
    drawn = np.random.default_rng(0)
    centres = drawn.standard_normal((40, 64))
    vectors = centres[drawn.integers(40, size=300)] + 0.2 * drawn.standard_normal((300, 64))
    flagged, sketches = held(vectors)
    expected = led(group(flagged, sketches))
    assert len(set(expected)) == 40
    assert led(group(*held(vectors * drawn.uniform(0.5, 2, (300, 1))))) == expected
    assert led(group(flagged.reverse(), sketches.sample(fraction=1, shuffle=True, seed=1))) == expected
    monkeypatch.setattr(findings, "BLOCK", 7)
    assert led(group(flagged, sketches)) == expected


def test_prompts_without_a_sketch_are_left_out():
    flagged, sketches = held([at(0), at(10), at(5)])
    assert led(group(flagged, sketches[1:])) == [1, 1]
    assert group(flagged, sketches[:0]).schema == {"prompt_id": pl.String, "finding_id": pl.String}
    assert group(flagged[:0], sketches).is_empty()


def test_only_the_highest_begin_findings_of_several(monkeypatch):
    monkeypatch.setattr(findings, "LEADERS", 2)
    flagged, sketches = held([at(0), at(90), at(180), at(181), at(91), at(1)])
    assert led(group(flagged, sketches)) == [0, 1, 2, 3, 1, 0]


def test_ten_thousand_take_seconds():
    """None resembles another: the most findings that so many can make."""
    flagged, sketches = held(np.random.default_rng(0).standard_normal((10_000, 64)))
    started = time.process_time()
    assert led(group(flagged, sketches)) == list(range(10_000))
    assert time.process_time() - started < 10  # 1 s on a core of 2026; all pairs one by one would take 50


@pytest.fixture(scope="module")
def memorized():
    """[rank, prompt_id, prompt, image, sketch_v1]: what the small model memorized, by generation."""
    labels = pl.read_parquet(LABELS).filter("label").select("prompt", "image")
    scorer = Model(BUNDLE, "cpu", config=ScanConfig(timesteps=()), batch_size=64).scorer()
    texts = labels["prompt"].to_list()
    parts = [sketch(scorer.trace(scorer.encode(texts[i : i + 32]))) for i in range(0, len(texts), 32)]
    flagged, sketches = held(np.concatenate(parts))
    return flagged.with_columns(labels).join(sketches, "prompt_id")


def pairs(found, truth):
    """Precision and recall of the pairs that are put together."""
    together = {pair for pair in combinations(range(len(found)), 2) if found[pair[0]] == found[pair[1]]}
    true = {pair for pair in combinations(range(len(truth)), 2) if truth[pair[0]] == truth[pair[1]]}
    return len(together & true) / max(1, len(together)), len(together & true) / len(true)


def test_findings_are_the_images_that_generation_showed(memorized):
    """Pure and nearly complete; the same sketches dealt out anew, and words that captions share, are neither."""
    truth = memorized["image"].to_list()
    precision, recall = pairs(led(group(memorized, memorized)), truth)
    assert precision > 0.85
    assert recall > 0.8
    dealt = memorized.with_columns(pl.col("sketch_v1").sample(fraction=1, shuffle=True, seed=3))
    assert max(pairs(led(group(dealt, dealt)), truth)) < 0.1
    words = [frozenset(prompt.split()) for prompt in memorized["prompt"]]
    one = [next(j for j, other in enumerate(words) if len(own & other) >= 0.6 * len(own | other)) for own in words]
    by_text = pairs(one, truth)
    assert by_text[0] < precision or by_text[1] < recall
