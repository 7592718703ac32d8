"""WebDataset tars: captions from the `.txt` or `.json` member of each sample, streamed member by member."""

import json
import tarfile
import zlib
from collections.abc import Container, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from scanner.dataset.readers.columns import Batches, from_python, pick, texts
from scanner.dataset.readers.find import is_url
from scanner.errors import InputError

HEAD = 100  # samples looked at for their captions
LARGEST = 1 << 24  # bytes of a caption member that are read


class StrictHeader(tarfile.TarInfo):
    """A member's header; a broken or missing one is an error, where tarfile takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "StrictHeader":
        """The next member's header, or None at the end. Raises tarfile.ReadError."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read(source: str, column: str | None) -> Batches:
    """A row is a sample, its members being neighbours with one name up to the first dot.

    The caption is its `.txt`, or the caption key of its `.json`; --column names another extension or key.
    """
    if is_url(source):
        raise InputError(f"{source}: a tar on an object store; needed a local file: copy it, or name its parquet")
    if source.lower().endswith(".tar"):
        _check_end(source)
    read = {"txt", "json"} if column is None else {"txt", "json", column.lower()}
    found = {key: None for sample in islice(_samples(source, read), HEAD) for key in sample}
    name = "txt" if column is None and "txt" in found else pick(list(found), column, source)
    return from_python(lambda: (texts(sample.get(name)) for sample in _samples(source, read)))


def _samples(source: str, read: Container[str]) -> Iterator[dict[str, Any]]:
    """Each sample: {extension: text if it is one of `read`, key of a .json member: value}. Raises InputError."""
    try:
        with tarfile.open(source, "r|*", tarinfo=StrictHeader) as archive:
            for _, members in groupby(_members(archive), key=lambda named: named[1]):
                sample: dict[str, Any] = {}
                for member, _, extension in members:
                    sample |= _content(archive, member, extension) if extension in read else {extension: None}
                yield sample
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{source}: a damaged or truncated tar ({error}): repair or leave out the file") from error


def _members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """(member, key, extension) of each file that is not hidden."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
        key, extension = _split(member.name)
        if member.isfile() and not key.endswith("/"):
            yield member, key, extension


def _split(name: str) -> tuple[str, str]:
    """("folder/key", "extension.s") of a member: WebDataset's rule, the first dot of the file name."""
    folder, _, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}/{key}", extension.lower()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> dict[str, Any]:
    file = archive.extractfile(member)
    if file is None or member.size > LARGEST:
        return {extension: None}
    content = file.read().decode("utf-8-sig", errors="replace")
    if extension != "json":
        return {extension: content}
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _check_end(source: str) -> None:
    """Raises InputError where the archive's end (two blocks of zeros) is missing: streaming would not notice."""
    with Path(source).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        if size < 1024 or file.read().strip(b"\x00"):
            raise InputError(f"{source}: a truncated tar, its end is missing: repair or leave out the file")
