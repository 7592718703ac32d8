"""What a folder holds: datasets, captions beside images, tables of many files; and what it holds beside them.

What is left out is named with its reason. A file that is named itself is never left out.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from scanner.dataset.readers.names import BESIDE, DELTA, IMAGES, Found, is_known, suffix
from scanner.dataset.readers.own import WRITTEN, is_document, is_store
from scanner.dataset.readers.prose import CAPITALS, no_captions
from scanner.dataset.readers.tables import above, of_folder
from scanner.errors import InputError

NOTES = ("dataset_info.json", "dataset_dict.json", "state.json")  # Hugging Face's, beside the data
INSTEAD = "write the captions to a file"
MANY, FEW = 20, 0.2  # texts in a folder, and the share of documents among them that is chance
HEAD = 4096  # bytes of a file that tell what it is


def named(path: Path, known: Sequence[str], found: Found) -> None:
    """What a path means: a file, or all of a folder."""
    source = str(path)
    table, what = above(path.absolute()) or (None, None)
    if table is not None and what != DELTA:
        found.refused[source] = f"a part of {what} ({table}), whose deleted rows overscan cannot tell: {INSTEAD}"
    elif table is not None and path.is_dir():
        found.refused[source] = f"a part of a Delta table: name the table, {table}"
    elif table is not None:
        _table(str(table), found)
    elif path.is_dir():
        _walk(source, known, found)
    else:
        _add(source, known, _beside(path), found)


def objects(urls: Sequence[str], known: Sequence[str], found: Found) -> None:
    """What URLs of objects mean; those of a Delta table are the table, of other formats none may be read alone."""
    listed, tables = set(urls), dict(_tables(urls))
    for url in urls:
        root = next((root for root in tables if url.startswith(f"{root}/")), None)
        table = f"{url.removesuffix('.tar')}.parquet"
        if root is None and url.endswith(".tar") and table in listed:
            found.passed_over[url] = f"its captions are in {table.rpartition('/')[2]}"
        elif root is None:
            _add(url, known, False, found)
        elif tables[root] == DELTA:
            found.files[root] = DELTA
        else:
            found.refused[root] = f"{tables[root]}, whose deleted rows overscan cannot tell: {INSTEAD}"


def _tables(urls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The folders among objects that are tables, and of which format."""
    for url in urls:
        for mark, what in ((r"/_delta_log/", DELTA), ("/.hoodie/", "a Hudi table"), ("/_versions/", "a Lance table")):
            root, marked, _ = url.partition(mark)
            if marked:
                yield root, what
        root, marked, name = url.rpartition("/metadata/")
        if marked and name.endswith(".metadata.json"):
            yield root, "an Iceberg table"


def _add(source: str, known: Sequence[str], beside: bool, found: Found) -> None:
    try:
        kind = BESIDE if beside else suffix(source, known)
    except InputError as error:
        found.refused[source] = str(error).partition(": ")[2]
        return
    if kind == ".tar" and (table := PurePosixPath(source).with_suffix(".parquet")) and os.path.exists(table):  # noqa: PTH110 (URLs)
        found.passed_over[source] = f"its captions are in {table.name}"
        source, kind = str(table), ".parquet"
    found.files[source] = kind


def _beside(path: Path) -> bool:
    """Whether a text lies beside an image of its name."""
    if path.suffix.lower() != ".txt":
        return False
    if path.stem.lower().endswith(IMAGES) and path.with_suffix("").exists():  # 1.jpg.txt beside 1.jpg
        return True
    return any(path.with_suffix(end).exists() or path.with_suffix(end.upper()).exists() for end in IMAGES)


def _walk(folder: str, known: Sequence[str], found: Found) -> None:
    """A folder's datasets, and those of the folders in it."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        found.refused[folder] = "this folder cannot be listed: check its permissions"
        return
    names = {entry.name for entry in entries}
    if what := of_folder(folder, names):
        if what == DELTA:
            _table(folder, found)
        else:
            found.refused[folder] = f"{what}, whose deleted rows overscan cannot tell: {INSTEAD}"
        return
    if "state.json" in names and (shards := _shards(Path(folder, "state.json"))):
        found.files |= {shard: suffix(shard, known) for shard in shards}
        found.walked |= set(shards)
        return
    _Folder(folder, entries, known, found).sort()


def _table(folder: str, found: Found) -> None:
    if is_store(folder):
        found.passed_over[folder] = "a table of an overscan store"
    else:
        found.files[folder] = DELTA


def _beside_it(entry: os.DirEntry[str]) -> str | None:
    """The name of the file of the same folder that a link leads to, so that no row counts twice."""
    target = Path(os.path.realpath(entry.path))
    return target.name if target.parent == Path(os.path.realpath(Path(entry.path).parent)) else None


class _Folder:
    """A folder's entries, which tell of each other what they are."""

    def __init__(self, folder: str, entries: list[os.DirEntry[str]], known: Sequence[str], found: Found):
        self.entries, self.known, self.found = entries, known, found
        self.folder = folder
        self.names = {entry.name for entry in entries}
        images = {entry.name for entry in entries if entry.name.lower().endswith(IMAGES)}
        self.pictured = images | {name.rpartition(".")[0] for name in images}
        texts = [name for name in self.names if name.lower().endswith((".txt", BESIDE))]
        self.captioned = {stem for stem in (name.rpartition(".")[0] for name in texts) if stem in self.pictured}
        self.one_each = bool(self.captioned) or any(name.lower().endswith(BESIDE) for name in texts)
        self.others: dict[str, int] = {}
        self.documents = {} if self.one_each else self._documents()

    def _documents(self) -> dict[str, str]:
        """The texts that are no captions, and why. Of very many most of which are captions, all are."""
        texts = [entry for entry in self.entries if entry.name.lower().endswith(".txt") and entry.is_file()]
        found = {}
        for entry in texts:
            if reason := no_captions(entry.name, _head(entry.path).decode(errors="replace")):
                found[entry.name] = reason
        if len(texts) >= MANY and len(found) < FEW * len(texts):
            return {name: reason for name, reason in found.items() if reason == CAPITALS}
        return found

    def sort(self) -> None:
        """Put every entry where it belongs."""
        for entry in self.entries:
            if entry.is_dir():
                self._directory(entry)
            elif not is_known(entry.name, self.known):
                end = PurePosixPath(entry.name).suffix.lower() or " without suffix"
                self.others[end] = self.others.get(end, 0) + 1
            elif not entry.is_file():
                link = entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 (an entry)
                self.found.refused[entry.path] = "a link to nothing" if link else "a pipe or device; needed a file"
            elif reason := self._reason(entry):
                self.found.passed_over[entry.path] = reason
            else:
                self._file(entry)
        for end, count in self.others.items():
            self.found.passed_over[f"{self.folder}/*{end}"] = f"no format of captions ({count:,} files)"

    def _directory(self, entry: os.DirEntry[str]) -> None:
        if entry.name.startswith((".", "_")):
            self.found.passed_over[entry.path] = "hidden: its name begins with . or _"
        elif entry.is_symlink():
            self.found.passed_over[entry.path] = "a linked folder"
        elif f"{entry.name}.parquet" in self.names:
            self.found.passed_over[entry.path] = f"its captions are in {entry.name}.parquet"
        else:
            try:
                _walk(entry.path, self.known, self.found)
            except RecursionError:
                self.found.refused[entry.path] = "folders nested too deeply: name one further down"

    def _file(self, entry: os.DirEntry[str]) -> None:
        stem, _, end = entry.name.rpartition(".")
        source, beside = entry.path, end.lower() == "txt" and stem in self.captioned
        before = len(self.found.files)
        _add(source, self.known, beside, self.found)
        if len(self.found.files) > before:
            self.found.walked.add(next(reversed(self.found.files)))

    def _reason(self, entry: os.DirEntry[str]) -> str | None:
        """Why a file of a known format is no dataset here, if it is none."""
        name = entry.name
        stem, _, end = name.rpartition(".")
        if name.startswith((".", "_")):
            return "hidden: its name begins with . or _"
        if entry.is_symlink() and (target := _beside_it(entry)):
            return f"a link to {target}, which is read"
        if name in NOTES or name.endswith("_stats.json"):
            return "notes of Hugging Face or img2dataset"
        if end.lower() == "json":
            if stem in self.captioned:
                return f"the caption of {stem} is in a text beside it"
            return WRITTEN if is_document(_head(entry.path)) else None
        if end.lower() == "txt" and stem not in self.captioned:
            if self.one_each:
                return "captions lie beside images here, and no image has this name"
            return self.documents.get(name)
        return None


def _head(path: str) -> bytes:
    """A file's beginning; nothing where opening it will say why."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (one of very many)
            return file.read(HEAD)
    except OSError:
        return b""


def _shards(state: Path) -> list[str]:
    """The files of a Hugging Face dataset on disk: those listed, not the caches beside them; none of others' state."""
    try:
        return [
            str(state.parent / Path(entry["filename"]).name) for entry in json.loads(state.read_bytes())["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
