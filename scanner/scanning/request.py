"""What a scan is asked, and its dataset: opened once, compared with a store as often as there are passes."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Required, TypedDict

import polars as pl

from scanner.config import AutoScreen, ScanConfig, Screen
from scanner.dataset import captions, readers
from scanner.dataset.partitions import Split, files, split_captions
from scanner.dataset.reading import FileReading, Reading
from scanner.dataset.shards import WHOLE, Shard
from scanner.diffusion.scores import SCORES, best_score
from scanner.diffusion.start import Watch, unwatched
from scanner.disk import work_files, work_folder
from scanner.errors import InputError, Interrupted
from scanner.model import Model
from scanner.objects import Folder
from scanner.places import absolute, is_url, place_of
from scanner.scanning.screen import possible
from scanner.store.ledger import Ledger
from scanner.store.pending import SCORED, Pending, compare
from scanner.store.record import Screening

Inputs = str | Path | Sequence[str | Path]


class Asked(TypedDict, total=False):
    """What `scan` and `dry_run` are asked by keyword; see `Request`."""

    model: Required[str | Path]
    store: Required[str | Path]
    column: str | None
    dialect: str | None
    reference: str | Path | None
    base_model: str | Path | None
    config: ScanConfig
    screen: Screen | AutoScreen | None
    backend: str
    precision: str
    batch_size: int | None
    limit: int | None
    strict: bool
    shard: Shard


@dataclass(frozen=True)
class Request:
    """A scan's inputs, model, store and settings.

    `column`: of the captions, None: guessed. `dialect`: of CSV files, None: guessed. `reference`: a file of ordinary
    captions, `base_model`: the model that this one was made from, for the scores that compare with them. `screen`: only
    prompts that stand out in a first pass get all of `config`'s passes; an AutoScreen is chosen first (`auto.settled`).
    `limit`: only so many rows. `strict`: files
    that cannot be read are an error, else they are left out and named. `shard`: the part of the unique prompts that
    this scan scores; others score the others.
    """

    inputs: Inputs
    model: str | Path
    store: str | Path
    column: str | None = None
    dialect: str | None = None
    reference: str | Path | None = None
    base_model: str | Path | None = None
    config: ScanConfig = ScanConfig()  # noqa: RUF009 (frozen)
    screen: Screen | AutoScreen | None = None
    backend: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    limit: int | None = None
    strict: bool = False
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        place_of(self.store)
        if isinstance(self.screen, Screen):
            possible(self.screen, self.config, self.reference is not None, self.base_model is not None)

    @cached_property
    def files(self) -> list[str]:
        """The inputs, absolute, as a record names them."""
        return readers.absolute([self.inputs] if isinstance(self.inputs, str | Path) else self.inputs)

    @cached_property
    def rows(self) -> readers.Rows:
        """The captions, files that cannot be opened left out. Raises InputError."""
        return readers.read(self.files, self.column, self.limit, self.strict, self.dialect)

    @cached_property
    def ordinary(self) -> list[str]:
        """The reference captions; none without a reference."""
        return [] if self.reference is None else captions.reference(self.reference)

    @property
    def begun(self) -> Ledger | None:
        """The store, where there is one already. Raises StoreError."""
        found = bool(Folder(self.store).names()) if is_url(self.store) else Path(self.store).exists()
        return Ledger(self.store) if found else None

    @property
    def screen_score(self) -> str:
        """The score of the first pass that screens: as asked, else the best of one seed, docs/screening.md."""
        assert isinstance(self.screen, Screen)
        return self.screen.score or best_score(self._first.settled, self.reference is not None)

    @cached_property
    def full_model(self) -> Model:
        """What computes the scan's scores, not opened yet."""
        reference = tuple(self.ordinary)
        return Model(self.model, self.backend, self.precision, self.config, reference, self.batch_size, self.base_model)

    @property
    def first_model(self) -> Model:
        """What scores every prompt: the first pass, where there is a screen; compared with what its score needs."""
        if self.screen is None:
            return self.full_model
        needs = SCORES[self.screen_score].needs
        reference = tuple(self.ordinary) if needs == "reference" else ()
        return self._first.adapted(reference=reference, base=self.base_model if needs == "base" else None)

    @cached_property
    def _first(self) -> Model:
        """The first pass's, compared with nothing; told the sampler's first, where a named score is of that."""
        assert isinstance(self.screen, Screen)
        config, score = self.screen.first_pass(self.config), self.screen.score
        if config.timesteps is None and score is not None and SCORES[score].sampled:
            config = config.with_timesteps(())
        model = self.full_model.adapted(config=config, reference=(), base=None)
        path, precision = self.screen.model or self.model, self.screen.precision or "auto"
        return replace(model, path=path, precision=precision) if self.screen.own_engine else model

    def after(self, first: Model) -> Model:
        """`full_model`, on the engines that the first pass has opened where they are the same."""
        if not isinstance(self.screen, Screen) or self.screen.own_engine:
            return self.full_model
        asked = {"config": self.config, "base": self.base_model, "batch_size": self.batch_size}
        return first.adapted(reference=tuple(self.ordinary), **asked)

    def screening(self, full: Model, first: Model) -> Screening:
        """The policy of a screened scan, before it has a threshold. Raises ScannerError or EngineError."""
        assert isinstance(self.screen, Screen)
        asked, area = self.screen, first.latent_area / full.latent_area
        return Screening(
            full.scan_id, first.scan_id, absolute(first.path), self.screen_score, asked.share, sample=asked.sample,
            passes=first.passes * area, wanted=asked.wanted, why=asked.why,
        )  # fmt: skip

    def screened_by(self, screen: Screen) -> "Request":
        """Itself with another screen; models are shared, if the first pass is the same. Raises ScannerError."""
        other = replace(self, screen=screen)
        vars(other)["full_model"] = self.full_model
        if isinstance(self.screen, Screen) and replace(self.screen, share=screen.share, why=screen.why) == screen:
            vars(other)["_first"] = self._first
        return other


@dataclass(frozen=True)
class Dataset:
    """Captions, split by prompt_id into `partitions`.

    `rows`: all but those of files that turned out damaged; `files`: what was read of each;
    `shard`: the part of the prompts that counts.
    """

    rows: readers.Rows
    partitions: Split
    files: Sequence[FileReading]
    folder: Path
    stop: Callable[[], bool]
    shard: Shard = WHOLE

    def reading(self, each: bool = False) -> Reading:
        """What was read; `each`: of every file, however many, where a record shortens."""
        return self.rows.reading_of(self.files, each)

    def pending(self, ledger: Ledger | None, scan_id: str | None, screened_out: pl.LazyFrame | None = None) -> Pending:
        """What a scan has no row of yet. `screened_out`: [prompt_id] that need no engine; without a store, all."""
        with work_files(self.folder):
            folder = Path(tempfile.mkdtemp(dir=self.folder))
        if ledger is None or scan_id is None:
            return compare(self.partitions, pl.LazyFrame(schema=SCORED), folder, self._check, screened_out, self.shard)
        with ledger.refusals():
            held = ledger.scores(scan_id).select("prompt_id", "status")
            return compare(self.partitions, held, folder, self._check, screened_out, self.shard)

    def _check(self) -> None:
        if self.stop():
            raise Interrupted(
                "interrupted while comparing captions with the store; what is committed stays: run it again"
            )


def reading_stops(stop: Callable[[], bool]) -> Callable[[], None]:
    """Raises Interrupted once `stop()` is true, while captions are read."""

    def check() -> None:
        if stop():
            raise Interrupted("interrupted while reading captions, before anything was scored: run it again")

    return check


@contextmanager
def dataset(
    request: Request, rows: readers.Rows, stop: Callable[[], bool], watch: Watch = unwatched
) -> Iterator[Dataset]:
    """Read the rows of a request; the work files live as long as the context. Raises InputError.

    `watch` hears of rows as "captions"; how many there are is not known.
    """
    stops, done = reading_stops(stop), 0

    def check(more: int) -> None:
        nonlocal done
        stops()
        done += more
        watch("captions", done, 0)

    with work_folder() as folder:
        split = folder / "all"
        try:
            split_captions(captions.texts(rows), split, check)
        except InputError:
            rows, split, done = readers.leave_out_damaged(rows, request.strict), folder / "readable", 0
            split_captions(captions.texts(rows), split, check)
        read = [tally.reading() for tally in rows.read.values()]
        yield dataset_of(request, rows, files(split), read, folder, stop)


def dataset_of(
    request: Request,
    rows: readers.Rows,
    partitions: Split,
    read: Sequence[FileReading],
    folder: Path,
    stop: Callable[[], bool],
) -> Dataset:
    """A dataset of captions that are split. Raises InputError where there are none."""
    if not any(partitions.values()):
        raise InputError(f"{', '.join(request.files)}: no caption rows in it")
    return Dataset(rows, partitions, read, folder, stop, request.shard)
