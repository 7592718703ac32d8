"""Records, scans and reports made by hand, with captions as hostile as they come."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from scanner.audit.rank import Rule
from scanner.audit.summary import Findings, Summary
from scanner.config import ScanConfig
from scanner.dataset.images import png
from scanner.report import Contents, Look, NullScores
from scanner.store.record import RunRecord
from scanner.store.stored import StoredScan

RECORD = RunRecord(
    purpose="scan", inputs=("x.txt",), column=None, limit=None, left_out=(), model="m", backend="cpu",
    precision="float32", passed_over=(), provider="p", batch_size=4, config=ScanConfig(), reference=None, host="h",
    versions={"overscan": "1"},
)  # fmt: skip
SUMMARY = Summary(
    date=date(2030, 1, 1), scan_id="scan", full_scan_id="scan", made_with=RECORD.made_with, rule=Rule("s_v1", top=1),
    prompts=1, scored=1, flagged=1, flagged_rows=1, findings=Findings(new=1), lowest_flagged=1.0,
)  # fmt: skip


def stored_scan(scores, captions, canaries=(), scan_id="scan", sketches=(), **record):
    """A scan as read back from a store, without one: its `scores` are known already, and the rest is given."""

    class Held(StoredScan):
        def canaries(self, score):
            return pl.DataFrame(canaries, schema={"canary": pl.String, score: pl.Float32}, orient="row")

        def sketches(self, prompt_ids):
            held = pl.DataFrame(sketches, schema={"prompt_id": pl.String, "sketch_v1": pl.Binary}, orient="row")
            return held.filter(pl.col("prompt_id").is_in(prompt_ids.implode()))

    found = Held(scan_id, Path("store"), replace(RECORD, **record), captions, ())
    vars(found)["scores"] = scores
    return found


HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "</script><script>document.title = 'owned'</script>",
    '"><img src="https://example.invalid/x.png" onerror="document.title = \'owned\'">',
    "a\0null \x1b[31m and a bell\x07",
    "invoice \u202egnp.exe",
    "شجرة عيد الميلاد مزينة بالأضواء",
    '=HYPERLINK("https://example.invalid","click")',
    "long " * 2000,
    "{{ 7 * 7 }} ${7 * 7} | `code` *bold* [x](https://example.invalid) @someone",
    "two\nlines",
]


def contents(texts=HOSTILE, n_flagged=None, **optional):
    """Prompt i has the score 1 - i/len, and i % 3 + 1 dataset rows in files a/b; all in order of score."""
    n = len(texts)
    n_flagged = n if n_flagged is None else n_flagged
    ranked = pl.DataFrame(
        {
            "prompt_id": [f"{i:032x}" for i in range(n)],
            "text": texts,
            "n_rows": [i % 3 + 1 for i in range(n)],
            "status": ["scored"] * n,
            "truncated": [text is not None and len(text) > 300 for text in texts],
            "agreement_v1": [1 - i / n for i in range(n)],
            "other_v1": [i * 1.5 for i in range(n)],
            "rank": range(1, n + 1),
            "flagged": [i < n_flagged for i in range(n)],
        },
        schema_overrides={"agreement_v1": pl.Float32, "other_v1": pl.Float32},
    )
    given = {
        "headline": f"The {n_flagged:,} that stand out most, to be checked",
        "score": "agreement_v1",
        "rule": "the highest",
        "made": datetime(2026, 11, 24, 3, 0, tzinfo=UTC),
        "facts": {"Dataset": "data/*.parquet", "Model": "models/<b>sd</b>"},
        "ranked": ranked,
    }
    made = given | optional
    ranked = made["ranked"].lazy()
    return Contents(**{"flagged": rows_of(ranked)} | made | {"ranked": ranked})


def rows_of(ranked):
    """A dataset row for each of a flagged prompt's `n_rows`."""
    rows = (
        ranked.filter("flagged")
        .collect()
        .drop("flagged")
        .with_columns(copy=pl.int_ranges(pl.col("n_rows")))
        .explode("copy")
    )
    file = pl.when(pl.col("copy") == 0).then(pl.lit("data/a.parquet")).otherwise(pl.lit("data/b.parquet"))
    return rows.with_columns(file=file, row=pl.col("rank") * 10 + pl.col("copy")).drop("copy")


def found(texts=("first", "second", "third", "fourth"), **optional):
    """A report whose first and third captions are one finding, looked at closely."""
    plain = contents(list(texts))
    ids = [f"{i:032x}" for i in range(len(texts))]
    leads = [ids[0] if i == 2 else ids[i] for i in range(len(texts))]
    ranked = plain.ranked.with_columns(finding_id=pl.Series(leads))
    look = Look(
        verdict="All 4 seeds give the same picture",
        pictures=[(f"seed {seed}", png(np.full((3, 32, 32), seed / 4, np.float32))) for seed in range(4)],
        measures=[("injection", "6.81")],
        words=[("<b>a</b>", True), ("word", False)],
        page="verified.html#p000000000000",
    )
    given = {"looks": {ids[0]: look}, "pages": {"Report": "report.html", "Pictures": "verified.html"}}
    return contents(list(texts), **{"ranked": ranked, "following": "overscan explain", **given, **optional})


def judged(texts=HOSTILE):
    """A report with a null, p- and q-values, findings and former nights."""
    plain = contents(texts)
    kinds = ["new", "known", "allowed"]
    ranked = plain.ranked.with_columns(
        p_value=pl.col("rank") / 1000, q_value=pl.col("rank") / 100,
        finding=pl.Series([kinds[i % 3] for i in range(len(texts))]),
    )  # fmt: skip
    return contents(
        texts, ranked=ranked, threshold=0.05, notes=["999 null captions can find 1 or more."],
        null=NullScores(pl.Series([i / 2000 for i in range(999)]), "null.parquet"),
        nights=pl.DataFrame({"date": [date(2026, 11, 23), date(2026, 11, 24)], "n_flagged": [8, 10], "n_new": [8, 4]}),
    )  # fmt: skip
