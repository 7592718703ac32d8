"""What a run was asked and with what it computed: written once, when it begins; read by reports years later.

This is the one place that knows how a record looks in the store, and how older versions of overscan wrote it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import polars as pl

from scanner.config import SCREENED_OUT, Base, MadeWith, Reference, ScanConfig
from scanner.dataset import reading as read
from scanner.dataset.reading import Reading
from scanner.dataset.shards import WHOLE, Shard
from scanner.errors import StoreError
from scanner.identity import identity

VERSION = 2  # 1: the first edition, whose records do not say so
FIRST_PASS: Final = "first pass"  # the purpose of a screened scan's first run; others are scan and calibration
Canary = Mapping[str, str | float | None]  # canary, and a number, or null where it has none, for each score


@dataclass(frozen=True)
class Screening:
    """The policy of a screened scan: prompts whose `score` of the first pass is below `threshold` get no other pass.

    `full_scan_id`: of the same scan unscreened, whose calibrations hold; `first_scan_id`: of the first pass, by
    `model`, of so many `passes` of the scan's own size per prompt; `share`: what the threshold was chosen for, None:
    not chosen yet; `sample`: the share of all prompts, by their ids, that get all passes whatever the first finds;
    `wanted`: what the screen shall keep of what all passes find, None: nobody said; `why`: it was chosen, in words.
    """

    full_scan_id: str
    first_scan_id: str
    model: str
    score: str
    share: float
    threshold: float | None = None
    sample: float = 0.0
    passes: float = 1
    wanted: float | None = None
    why: str = ""

    @property
    def asked(self) -> "Screening":
        """What was asked for: without what was found out, or lay somewhere."""
        return replace(self, threshold=None, model="", passes=1, why="")

    @property
    def below(self) -> pl.Expr:
        """Whether a prompt's first score is below the threshold: null where it has none."""
        assert self.threshold is not None
        return pl.col(self.score).cast(pl.Float64) < self.threshold

    @property
    def scan_id(self) -> str:
        """Identity of all that a screened scan's rows depend on, the threshold among it."""
        assert self.threshold is not None
        of = {"full": self.full_scan_id, "first": self.first_scan_id, "score": self.score, "threshold": self.threshold}
        return identity(of | ({"sample": self.sample} if self.sample else {}))  # as before there were samples


@dataclass(frozen=True)
class Screened(Screening):
    """A screening and what it came to.

    `passes_per_prompt`: the first pass for everyone, and all of the scan's for the refined, who pay both.
    """

    refined: int = 0
    screened_out: int = 0
    passes_per_prompt: float = 1.0


@dataclass(frozen=True)
class RunRecord:
    """One run of a scan, of a screened scan's first pass, or of a calibration (`purpose`).

    `inputs`, `column`, `limit`, `dialect`: the captions, which a report reads again; `left_out`: files of them that
    could not be read; `reading`: those that were, with rows each;
    `passed_over`: backends that `auto` could not take, and why; `canaries`: scores of fixed prompts on that day.
    `shard`: the part of all prompts that the run was to score; `prompts`: unique ones in it, of which `left` had no row
    yet, while the store held `held` rows in that part.
    `version`: of the record, as it was written.
    """

    purpose: str
    inputs: tuple[str, ...]
    column: str | None
    limit: int | None
    left_out: tuple[str, ...]
    model: str
    backend: str
    precision: str
    passed_over: tuple[str, ...]
    provider: str
    batch_size: int | None
    config: ScanConfig
    reference: Reference | None
    host: str | None
    versions: Mapping[str, str]
    canaries: tuple[Canary, ...] = ()
    screening: Screening | None = None
    dialect: str | None = None
    reading: Reading | None = None
    shard: Shard = WHOLE
    prompts: int | None = None
    left: int = 0
    held: int = 0
    base: Base | None = None
    version: int = VERSION

    @property
    def captions(self) -> tuple[object, ...]:
        """What names the captions that a run was asked for: runs in which it is equal read the same ones."""
        return self.inputs, self.column, self.limit, self.dialect

    @property
    def made_with(self) -> MadeWith:
        """What the run's scan_id was made of, and the model's name."""
        return MadeWith(self.model, self.backend, self.precision, self.config, self.reference, self.base)

    def full_scan_id(self, scan_id: str) -> str:
        """Of the same scan unscreened, given the run's own."""
        return scan_id if self.screening is None else self.screening.full_scan_id

    def screened(self, statuses: Mapping[str, int]) -> Screened | None:
        """The screening and what it came to, from prompts by status; None for a scan without a screen."""
        if self.screening is None:
            return None
        refined, out = statuses.get("scored", 0) + statuses.get("non_finite", 0), statuses.get(SCREENED_OUT, 0)
        whole = self.config.passes_with(self.base is not None)
        average = self.screening.passes + whole * refined / max(1, refined + out)
        return Screened(**vars(self.screening), refined=refined, screened_out=out, passes_per_prompt=average)


def as_json(record: RunRecord) -> str:
    """A record as the store keeps it."""
    reading = None if record.reading is None else read.as_json(record.reading)
    return json.dumps(asdict(record) | {"reading": reading})


def of_json(text: str) -> RunRecord:
    """Read a record of this version or an older one; keys that a newer one has added are passed over.

    Raises StoreError where it is none.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        made = MadeWith.of_json(raw)
        screening, reading = raw.get("screening"), raw.get("reading")  # older versions did not screen, nor tell
        shard = raw.get("shard")  # nor share a scan
        return RunRecord(
            purpose=raw.get("purpose", "scan"),  # before there were calibrations
            inputs=tuple(raw["inputs"]),
            column=raw["column"],
            limit=raw["limit"],
            left_out=tuple(raw["left_out"]),
            model=made.model,
            backend=made.backend,
            precision=made.precision,
            passed_over=tuple(raw.get("passed_over", ())),
            provider=raw["provider"],
            batch_size=raw.get("batch_size"),
            config=made.config,
            reference=made.reference,
            host=raw.get("host"),
            versions=raw["versions"],
            canaries=tuple(raw.get("canaries", ())),
            screening=None if screening is None else _screening(screening),
            dialect=raw.get("dialect"),
            reading=None if reading is None else read.of_json(reading),
            shard=WHOLE if shard is None else Shard(shard["index"], shard["count"]),
            prompts=raw.get("prompts"),
            left=raw.get("left", 0),
            held=raw.get("held", 0),
            base=made.base,
            version=raw.get("version", 1),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"the record of a run cannot be read ({error!r}): {text[:200]}") from error


def _screening(raw: Mapping[str, Any]) -> Screening:
    return Screening(
        full_scan_id=raw["full_scan_id"],
        first_scan_id=raw["first_scan_id"],
        model=raw["model"],
        score=raw["score"],
        share=raw["share"],
        threshold=raw["threshold"],
        sample=raw.get("sample", 0.0),
        passes=raw.get("passes", 1),  # before there were base models
        wanted=raw.get("wanted"),
        why=raw.get("why", ""),  # before screens were chosen
    )
