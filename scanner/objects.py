"""What lies at places: read, written, listed and fetched, on a disk and on an object store in the same words.

What is written appears whole or not at all, and `create` refuses what is there already, on a disk as on an object
store: processes that share nothing else can settle there who was first.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, from_url

from scanner import places
from scanner.disk import writing
from scanner.errors import RemoteError
from scanner.places import PATIENCE, Place, failure, inside, is_url, place_of

READ = 1 << 22  # bytes of an object that are asked for at a time


@dataclass(frozen=True)
class Folder:
    """A folder at a place. `private`: where it is made on a disk, nobody but its user can read it.

    Names in it are relative paths with slashes. Every method raises DiskError or RemoteError where the
    place refuses, PlaceError where it cannot be.
    """

    place: Place
    private: bool = False

    @cached_property
    def _store(self) -> Any:
        if is_url(self.place):
            return _store(str(place_of(self.place)))
        with self._refusals():
            Path(self.place).mkdir(mode=0o700 if self.private else 0o777, parents=True, exist_ok=True)
        return LocalStore(prefix=self.place)

    def path(self, name: str) -> Place:
        """The place of what is in it."""
        return inside(self.place, name)

    def read(self, name: str) -> bytes | None:
        """The bytes at a name; None where there are none."""
        with self._refusals():
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Put bytes at a name, over what is there."""
        with self._refusals():
            obstore.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Put bytes at a name where nothing is yet; false where somebody was first."""
        with self._refusals():
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def look(self, name: str) -> dict[str, Any] | None:
        """What `listed` says of a name; None where nothing is. Where a bucket is not, only a listing says so."""
        with self._refusals():
            try:
                return dict(obstore.head(self._store, name))
            except FileNotFoundError:
                return None

    def exchange(self, name: str, data: bytes, seen: dict[str, Any] | None) -> bool:
        """Put bytes at a name that is still as `look` saw it; false where somebody was first. Not on a disk."""
        if seen is None:
            return self.create(name, data)
        same: Any = {key: seen[key] for key in ("e_tag", "version") if seen[key] is not None}
        with self._refusals():
            try:
                obstore.put(self._store, name, data, mode=same, use_multipart=False)
            except PreconditionError:
                return False
        return True

    def put(self, name: str, file: Path) -> None:
        """Put a file's bytes at a name."""
        with self._refusals(), file.open("rb") as opened:
            obstore.put(self._store, name, opened)

    def fetch(self, name: str, file: Path) -> None:
        """Write the bytes at a name to a file, streamed."""
        with self._refusals():
            found = obstore.get(self._store, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:
                for block in found.stream(min_chunk_size=READ):
                    opened.write(block)

    def names(self, start: str = "") -> list[str]:
        """Names in the folder `start`, which ends with a slash, or in all, in order."""
        with self._refusals():
            return sorted(found["path"] for batch in obstore.list(self._store, prefix=start) for found in batch)

    def changed(self) -> dict[str, datetime]:
        """When each name was written."""
        return {found["path"]: found["last_modified"] for found in self.listed()}

    def listed(self) -> list[dict[str, Any]]:
        """All that is in it: `path`, `last_modified`, `size` in bytes, and `e_tag`, which changes with the content."""
        with self._refusals():
            return [dict(found) for batch in obstore.list(self._store) for found in batch]

    def delete(self, name: str) -> None:
        """Remove one name; that others have removed it is no error."""
        with self._refusals(), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def remove(self, start: str = "") -> None:
        """Remove all in the folder `start`, or in all; what others remove at the same time is no error."""
        names = self.names(start)
        with self._refusals():
            for first in range(0, len(names), 1000):
                try:
                    obstore.delete(self._store, names[first : first + 1000])
                except FileNotFoundError:
                    continue
        if not is_url(self.place):
            self._remove_empty(Path(self.place) / start)

    def _remove_empty(self, folder: Path) -> None:
        """An object store has no empty folders, so neither has a disk."""
        for parent, _, _ in os.walk(folder, topdown=False):
            try:
                Path(parent).rmdir()
            except OSError:  # somebody writes there
                continue

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        if not is_url(self.place):
            with writing(Path(self.place)):
                yield
            return
        try:
            yield
        except (BaseError, OSError) as error:
            raise failure(self.place, error) or RemoteError(f"{self.place}: {_line(error)}") from error


def _store(url: str) -> Any:
    return from_url(url, retry_config={"max_retries": places.RETRIES, "retry_timeout": timedelta(seconds=PATIENCE)})


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def opened(url: str) -> IO[bytes]:
    """An object's bytes, to be read in any order. Raises OSError."""
    folder, _, name = url.rpartition("/")
    try:
        found = obstore.open_reader(_store(folder), name, buffer_size=READ)
    except BaseError as error:
        raise OSError(_line(error)) from error
    return io.BufferedReader(_Object(found), READ)


class _Object(io.RawIOBase):
    """Python's own way to read a file, over obstore's."""

    def __init__(self, found: Any):
        self._found, self.size = found, int(found.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            read = memoryview(self._found.read(len(buffer)))
        except BaseError as error:
            raise OSError(_line(error)) from error
        buffer[: len(read)] = read
        return len(read)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._found.seek(offset, whence))

    def tell(self) -> int:
        return int(self._found.tell())


def size_of(file: str) -> int:
    """Bytes of a local file or of an object. Raises OSError."""
    if not is_url(file):
        return Path(file).stat().st_size
    folder, _, name = file.rpartition("/")
    try:
        return int(obstore.head(_store(folder), name)["size"])
    except BaseError as error:
        raise OSError(_line(error)) from error
