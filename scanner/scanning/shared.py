"""What the shards of one scan share: the split captions, and what one of them finds out for all.

It lies beside the store, in `STORE.split/KEY`, for as long as a shard may need it. KEY names the inputs as they are
now, so shards that see other files share nothing. The captions are in it, split by prompt_id: each part of the files is
read once, by whichever shard claims it first.

    read/K.json              part K is split: the folder that holds it, and what was read
    parts/K-TOKEN/digit=D/   its prompts
    claims/K                 who splits it now. Only saves work: a part that is split twice is the same twice
    done/SCAN_ID/I-of-N      shard I of N is done. The last one to be removes all
    batch-ID                 the batch size, of the first trial

A claim that does not change for STALE seconds, by the watch of who waits, is nobody's: its owner was killed.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from engines.cores import usable_cores
from scanner.dataset import captions, readers
from scanner.dataset.partitions import DIGITS, Split, split_captions
from scanner.dataset.reading import FileReading, facts, file_of_json
from scanner.dataset.shards import Shard
from scanner.diffusion.start import Watch
from scanner.disk import work_folder
from scanner.errors import InputError
from scanner.identity import identity
from scanner.model import Model
from scanner.objects import Folder
from scanner.places import Place, beside, is_url
from scanner.scanning.request import Dataset, Request, dataset_of, reading_stops

FORMAT = 1
PARTS = 256  # at most: each has sixteen files
BEAT = 5.0  # seconds between changes of a claim
STALE = 60.0
POLL = 0.5
SPLIT, DONE = ".split", ".done"


@dataclass(frozen=True)
class Read:
    """Split captions of all files, and what was read of them; `problems`: of files that turned out damaged."""

    partitions: Split
    files: tuple[FileReading, ...]
    problems: tuple[readers.Problem, ...]


@dataclass(frozen=True)
class Shared:
    """The folder of one scan's shards. Its methods raise ScannerError where the place refuses."""

    folder: Folder
    rows: readers.Rows
    strict: bool
    shard: Shard
    stop: Callable[[], None]
    watch: Watch
    _seen: dict[str, tuple[bytes, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, request: Request, rows: readers.Rows, stop: Callable[[], bool], watch: Watch) -> "Shared":
        """Of what a request asks, as its files are now."""
        asked = [request.files, request.column, request.dialect, request.limit, request.strict]
        files = [(file, _state(file)) for file in rows.files]
        place = beside(request.store, f"{SPLIT}/{identity({'format': FORMAT, 'asked': asked, 'files': files})}")
        return cls(Folder(place, private=True), rows, request.strict, request.shard, reading_stops(stop), watch)

    def prepared(self, model: Model, watch: Watch) -> Model:
        """The model, prepared for the batch size that all shards on the same kind of machine use."""
        if model.batch_size is not None or model.prepared is not None:
            return model.prepare(watch)
        kind = [model.bundle.manifest.fingerprint, model.bundle.backend, model.bundle.precision]
        name = f"batch-{identity({'kind': [*kind, model.denoiser.provider, usable_cores()]})}"
        if (known := self.folder.read(name)) is None:
            self.folder.create(name, str(model.prepare(watch).batch_size).encode())
            known = self.folder.read(name)
        assert known is not None
        return model.adapted(batch_size=int(known)).prepare(watch)

    @contextmanager
    def dataset(self, request: Request, stop: Callable[[], bool]) -> Iterator[Dataset]:
        """The captions, split by all shards together, as `request.dataset` has them. Raises InputError."""
        with work_folder() as folder:
            read = self.split()
            rows = self.rows.without({problem.file for problem in read.problems})
            rows = replace(rows, problems=(*rows.problems, *read.problems))
            yield dataset_of(request, rows, read.partitions, read.files, folder, stop)

    def split(self) -> Read:
        """All captions, split: reads the files that no other shard has read, and waits for those that one does."""
        order = [*self._parts[self._first :], *self._parts[: self._first]]
        while True:
            read = self.folder.names("read/")
            left = [part for part in order if f"read/{part}.json" not in read]
            if not left:
                return self._read()
            self.watch("captions", len(order) - len(left), len(order))
            self.stop()
            claimed = next((part for part in left if self._claim(part)), None)
            if claimed is None:
                time.sleep(POLL)
            else:
                self._split(claimed)

    def done(self, scan_id: str) -> None:
        """Say that this shard is done; the last one removes what they shared."""
        marker = beside(self.folder.place, DONE)
        folder, name = Folder(os.path.dirname(marker)), os.path.basename(marker)  # noqa: PTH119, PTH120 (or a URL)
        self.folder.write(f"done/{scan_id}/{self.shard.index}-of-{self.shard.count}", b"")
        named = self.folder.names(f"done/{scan_id}/")
        finished = sum(name.endswith(f"-of-{self.shard.count}") for name in named)
        if finished == self.shard.count or folder.read(name) is not None:  # or a shard that is run once more
            folder.write(name, b"")
            self.folder.remove()

    @cached_property
    def _parts(self) -> list[str]:
        return [str(i) for i in range(min(PARTS, len(self.rows.files) if self.rows.limit is None else 1))]

    @property
    def _first(self) -> int:
        """The part that this shard begins with, so that all are busy."""
        return (self.shard.index - 1) * len(self._parts) // self.shard.count

    def _files(self, part: str) -> readers.Rows:
        """A part of the files, in their order, of about equal numbers."""
        names = list(self.rows.files)
        first, last = (len(names) * i // len(self._parts) for i in (int(part), int(part) + 1))
        return replace(
            self.rows, files={name: self.rows.files[name] for name in names[first:last]}, problems=(), read={}
        )

    def _claim(self, part: str) -> bool:
        """Whether the part is this process's to split: nobody's yet, or somebody's who was killed."""
        name, mine = f"claims/{part}", secrets.token_bytes(8)
        if self.folder.create(name, mine):
            return True
        found, now = self.folder.read(name) or b"", time.monotonic()
        known, since = self._seen.get(part, (None, now))
        if known != found:
            self._seen[part] = found, now
            return False
        if now - since < STALE:
            return False
        self.folder.write(name, mine)
        return True

    def _split(self, part: str) -> None:
        rows, problems, folder = self._files(part), tuple[readers.Problem, ...](), self._new(part)
        try:
            split_captions(captions.texts(rows), self.folder.path(folder), self._beating(part))
        except InputError:
            if self.strict:
                raise
            problems, folder = tuple(readers.damaged(rows)), self._new(part)
            rows = replace(rows.without({problem.file for problem in problems}), read={})
            if rows.files:
                split_captions(captions.texts(rows), self.folder.path(folder), self._beating(part))
        found = {
            "folder": folder,
            "files": [facts(tally.reading()) for tally in rows.read.values()],
            "problems": [[problem.file, problem.message] for problem in problems],
        }
        self.folder.write(f"read/{part}.json", json.dumps(found).encode())

    def _new(self, part: str) -> str:
        return f"parts/{part}-{secrets.token_hex(4)}"

    def _beating(self, part: str) -> Callable[[int], None]:
        """`stop`, which also keeps the claim alive."""
        beaten = time.monotonic()

        def beat(rows: int) -> None:
            nonlocal beaten
            self.stop()
            if time.monotonic() - beaten > BEAT:
                beaten = time.monotonic()
                self.folder.write(f"claims/{part}", secrets.token_bytes(8))

        return beat

    def _read(self) -> Read:
        found = [json.loads(self.folder.read(f"read/{part}.json") or b"") for part in self._parts]
        wanted = {part["folder"] for part in found}
        partitions: dict[str, list[Place]] = {digit: [] for digit in DIGITS}
        for name in self.folder.names("parts/"):
            folder, _, rest = name.partition("/digit=")
            if folder in wanted and rest.endswith(".parquet"):
                partitions[rest[0]].append(self.folder.path(name))
        files = tuple(file_of_json(file) for part in found for file in part["files"])
        return Read(partitions, files, tuple(readers.Problem(*each) for part in found for each in part["problems"]))


def _state(file: str) -> Sequence[object]:
    """What changes with a file: its size and times; nothing for what is on an object store."""
    if is_url(file):
        return []
    paths = sorted(Path(file, "_delta_log").iterdir()) if Path(file).is_dir() else [Path(file)]
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def sweep(store: Place, retention: timedelta) -> int:
    """Remove what shards that were never finished left beside a store so long ago; returns how many scans'."""
    folder, before = Folder(beside(store, SPLIT)), datetime.now(UTC) - retention
    if not (is_url(store) or Path(folder.place).exists()):
        return 0
    newest: dict[str, datetime] = {}
    for name, changed in folder.changed().items():
        key = name.partition("/")[0]
        newest[key] = max(changed, newest.get(key, changed))
    old = [key for key, changed in newest.items() if changed < before]
    for key in old:
        if key.endswith(DONE):
            folder.delete(key)
        else:
            folder.remove(f"{key}/")
    return sum(not key.endswith(DONE) for key in old)
