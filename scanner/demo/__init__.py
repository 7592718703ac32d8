"""The bundled model, its captions, and what generation says about them.

`bundle/`: a small latent diffusion model trained on captioned pictures of drawings (docs/ground-truth.md);
`captions.parquet`: its training captions, as often as it is shown them, and others that it never saw; `labels.parquet`:
for each prompt, whether full generation reproduces a training image; `reference.txt`: ordinary captions, none of them
among the others, for `--reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from scanner.audit.decision import Night, decide
from scanner.audit.rank import Rule
from scanner.diffusion.scores import DEFAULT_SCORE
from scanner.diffusion.start import Watch, unwatched
from scanner.evidence.metrics import auroc, precision_recall
from scanner.report import Beside, Contents, contents_of, facts_of, write
from scanner.scanning.dry_run import DryRun, dry_run
from scanner.scanning.result import ScanResult
from scanner.scanning.run import scan
from scanner.store.record import RunRecord
from scanner.store.stored import read_store

DATA = Path(__file__).parent
BUNDLE, CAPTIONS, LABELS = DATA / "bundle", DATA / "captions.parquet", DATA / "labels.parquet"
REFERENCE = DATA / "reference.txt"
RULE = Rule(DEFAULT_SCORE, quantile=0.93)  # 7 %: a list that could hold the 6.6 % that are memorized, and no more
Closer = Callable[[Night, RunRecord], tuple[Beside, str | None]]


@dataclass(frozen=True)
class Demo:
    """A demo run.

    `labelled` counts the flagged prompts that generation decided, `confirmed` those of them that it showed to be
    memorized, `collapsed` those whose seeds all give one picture that is no copy; `memorized` counts all that are.
    `copies`: so many seeds of so many copy one image, or more, of each of these.
    """

    result: ScanResult
    labelled: int
    confirmed: int
    collapsed: int
    memorized: int
    copies: tuple[int, int]
    precision: float
    recall: float
    auroc: float
    contents: Contents = field(repr=False)


def plan(out: Path, watch: Watch = unwatched) -> DryRun:
    """What `run` will do, and how long it takes here; where nothing is left to score, the speed of a few again."""
    planned = dry_run(CAPTIONS, model=BUNDLE, store=out / "store", watch=watch)
    if planned.pending:
        return planned
    again = dry_run(CAPTIONS, model=BUNDLE, store=out / "none", watch=watch)
    return replace(planned, prompts_per_second=again.prompts_per_second)


def run(out: Path, watch: Watch = unwatched, look: Closer = lambda night, record: (Beside(), None)) -> Demo:
    """Scan the bundled captions with the bundled model into `out/store`, report into `out`, compare with the labels.

    `look`: what closer looks add to the report, and the command to type next.
    """
    result = scan(CAPTIONS, model=BUNDLE, store=out / "store", watch=watch)
    stored, made = read_store(out / "store"), datetime.now(UTC)
    night = decide(stored, RULE, made.date())
    beside, following = look(night, stored.record)
    contents = contents_of(
        night, facts_of(stored.scan_id, stored.record), made,
        looks=beside.looks, pages=beside.pages, following=following,
    )  # fmt: skip
    write(out, contents, night.summary, beside.files)
    labels = pl.read_parquet(LABELS).rename({"prompt": "text"}).drop_nulls("label")
    judged = night.ranked.join(labels.lazy(), on="text", how="inner", maintain_order="left").collect()
    score, flagged, label, collapsed = (
        judged[name].to_numpy() for name in (RULE.score, "flagged", "label", "collapsed")
    )
    precision, recall = precision_recall(flagged, label)
    fewest, seeds = labels.select(pl.col("copied_seeds").filter("label").min(), seeds=pl.col("copied_seeds").max()).row(
        0
    )
    return Demo(
        result=result,
        labelled=int(flagged.sum()),
        confirmed=int((flagged & label).sum()),
        collapsed=int((flagged & collapsed).sum()),
        memorized=int(label.sum()),
        copies=(fewest, seeds),
        precision=precision,
        recall=recall,
        auroc=auroc(score, label),
        contents=contents,
    )
