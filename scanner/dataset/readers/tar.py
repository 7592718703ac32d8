"""WebDataset tars: captions from the `.txt` or `.json` member of each sample, streamed member by member."""

import json
import tarfile
import zlib
from collections.abc import Callable, Container, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from scanner.dataset.readers.columns import Batches, from_python, pick, texts
from scanner.dataset.readers.find import is_url
from scanner.errors import InputError

HEAD = 100  # samples looked at for their captions
LARGEST = 1 << 24  # bytes of a caption member that are read
LARGEST_IMAGE = 1 << 28  # bytes of an image member that are read
IMAGES = ("jpg", "jpeg", "png", "webp")


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
    found = {key: None for _, sample in islice(_samples(source, read, _text), HEAD) for key in sample}
    name = "txt" if column is None and "txt" in found else pick(list(found), column, source)
    return from_python(lambda: (texts(sample.get(name)) for _, sample in _samples(source, read, _text)))


def images(source: str) -> Iterator[tuple[int, str, bytes | None]]:
    """(row, key, bytes of its image member) of every sample; None where it has no image. Raises InputError.

    Rows are numbered as `read` numbers them; the key is without its folder.
    """
    for row, (key, sample) in enumerate(_samples(source, IMAGES, _bytes)):
        yield row, key.rpartition("/")[2], next((sample[name] for name in IMAGES if sample.get(name) is not None), None)


def _samples(
    source: str, read: Container[str], content: Callable[[tarfile.TarFile, tarfile.TarInfo, str], dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each sample's key and {extension: None}, with `content` of the members of `read`. Raises InputError."""
    try:
        with tarfile.open(source, "r|*", tarinfo=StrictHeader) as archive:
            for key, members in groupby(_members(archive), key=lambda named: named[1]):
                sample: dict[str, Any] = {}
                for member, _, extension in members:
                    sample |= content(archive, member, extension) if extension in read else {extension: None}
                yield key, sample
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


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> dict[str, bytes | None]:
    file = archive.extractfile(member)
    return {extension: None if file is None or member.size > LARGEST_IMAGE else file.read()}


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> dict[str, Any]:
    """{extension: text}, or the keys of a .json member with their values."""
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
