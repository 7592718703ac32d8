"""WebDataset tars: captions from a text or `.json` member of each sample, streamed member by member."""

import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterator
from itertools import groupby, islice
from typing import Any

from scanner.dataset.readers.columns import COLUMN_GUESSES, Source, from_python, refusal
from scanner.dataset.readers.lines import MARK, raw, sign_of
from scanner.dataset.readers.records import HEAD, Captions, captions_of, parse
from scanner.objects import size_of

LARGEST = 1 << 24  # bytes of a caption member that are read
LARGEST_IMAGE = 1 << 28  # bytes of an image member that are read
IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = {"txt", "json", *COLUMN_GUESSES, *(f"{guess}s" for guess in COLUMN_GUESSES)}  # extensions that are read
PACKING = 1032  # no gzip file holds more times its size


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


def read(source: str, column: str | None) -> Source:
    """A row is a sample, its members being neighbours with one name up to the first dot.

    The caption is its `.txt`, or a member or a key of its `.json` that is called like a caption; --column names other
    extensions or keys. Letters' case does not matter.
    """
    if source.lower().endswith(".tar"):
        _check_end(source)
    named = {part.strip().lower() for part in ([] if column is None else [column, *column.split(",")])}
    missing: Counter[str] = Counter()

    def samples() -> Iterator[dict[str, Any]]:
        return (sample for _, sample in _samples(source, TEXTS | named, _text))

    if column is None and any("txt" in sample for sample in islice(samples(), HEAD)):
        of, names = Captions([("txt",)], missing), ["txt"]
    else:
        of, names = captions_of(samples, column, source, missing)
    how = {"column": ",".join(".".join(path) for path in of.paths)}
    return Source(from_python(lambda: map(of, samples())), how, names, missing)


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
        with raw(source) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=StrictHeader) as archive:
            for key, members in groupby(_members(archive, source), key=lambda named: named[1]):
                sample: dict[str, Any] = {}
                for member, _, extension in members:
                    sample |= content(archive, member, extension) if extension in read else {extension: None}
                yield key, sample
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise refusal(source, f"a damaged or truncated tar ({error}): repair or leave out the file") from error


def _members(archive: tarfile.TarFile, source: str) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """(member, key, extension) of each file that is not hidden. Raises tarfile.ReadError for one cut short."""
    size = size_of(source)
    most = size if source.lower().endswith(".tar") else size * PACKING
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
        key, extension = _split(member.name)
        if member.isfile() and not key.endswith("/"):
            yield member, key, extension
        if member.size < 0 or (not member.issparse() and member.offset_data + member.size > most):
            raise tarfile.ReadError(
                f"a member of {member.size:,} bytes in a file of {size:,}"
            )  # before passing it over


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
    content = file.read().decode(errors="replace").lstrip(MARK)
    if extension != "json":
        return {extension: content}
    value = parse(content)
    return value if isinstance(value, dict) else {}


def _check_end(source: str) -> None:
    """Raises InputError where the archive's end (two blocks of zeros) is missing: streaming would not notice."""
    with raw(source) as file:
        if (what := sign_of(file.read(8))) is not None:
            raise refusal(
                source, f"{what} under the name of a tar; needed a tar: rename it, to .tar.gz if it is packed"
            )
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        if size < 1024 or file.read().strip(b"\x00"):
            raise refusal(source, "a truncated tar, its end is missing: repair or leave out the file")
