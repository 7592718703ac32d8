"""The bundled model, its captions, and what generation says about them.

`bundle/`: a small latent diffusion model trained on emoji artwork; `captions.parquet`: its training captions and others
that it never saw; `labels.parquet`: for each prompt, whether full generation reproduces a training image;
`reference.txt`: ordinary captions, none of them among the others, for `--reference`.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from scanner.audit.decision import decide
from scanner.audit.rank import Rule
from scanner.diffusion.scores import DEFAULT_SCORE
from scanner.diffusion.start import Watch, unwatched
from scanner.evidence.metrics import auroc, precision_recall
from scanner.report import Contents, contents_of, facts_of, write
from scanner.scanning.result import ScanResult
from scanner.scanning.run import scan
from scanner.store.stored import read_store

DATA = Path(__file__).parent
BUNDLE, CAPTIONS, LABELS = DATA / "bundle", DATA / "captions.parquet", DATA / "labels.parquet"
REFERENCE = DATA / "reference.txt"
RULE = Rule(DEFAULT_SCORE, quantile=0.95)


@dataclass(frozen=True)
class Demo:
    """A demo run: `labelled` counts the flagged prompts that generation decided, `memorized` those it confirmed."""

    result: ScanResult
    labelled: int
    memorized: int
    precision: float
    recall: float
    auroc: float
    contents: Contents = field(repr=False)


def run(out: Path, watch: Watch = unwatched) -> Demo:
    """Scan the bundled captions with the bundled model into `out/store`, report into `out`, compare with the labels."""
    result = scan(CAPTIONS, model=BUNDLE, store=out / "store", watch=watch)
    stored, made = read_store(out / "store"), datetime.now(UTC)
    night = decide(stored, RULE, made.date())
    contents = contents_of(night, facts_of(stored.scan_id, stored.record), made)
    write(out, contents, night.summary)
    truth = pl.read_parquet(LABELS).select(text="prompt", label="label").drop_nulls("label")
    judged = night.ranked.join(truth, on="text", how="inner")
    score, flagged, label = (judged[name].to_numpy() for name in (RULE.score, "flagged", "label"))
    precision, recall = precision_recall(flagged, label)
    return Demo(
        result=result,
        labelled=int(flagged.sum()),
        memorized=int((flagged & label).sum()),
        precision=precision,
        recall=recall,
        auroc=auroc(score, label),
        contents=contents,
    )
