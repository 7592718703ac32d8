"""Places: folders of this machine and of object stores, behind one way to name, list, read and write what is in them.

What is written appears whole or not at all, and `create` refuses what is there already, on a disk as on an object
store: processes that share nothing else can settle there who was first.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from scanner.disk import URL, writing
from scanner.errors import DiskError, first_line

Place = str | Path  # a URL as text, or a path


def is_url(place: Place) -> bool:
    """Whether a place is of an object store."""
    return URL.match(str(place)) is not None


def beside(place: Place, suffix: str) -> Place:
    """The place whose name is longer by `suffix`."""
    return f"{str(place).rstrip('/')}{suffix}" if is_url(place) else Path(f"{Path(place).absolute()}{suffix}")


def inside(place: Place, name: str) -> Place:
    """What lies at `name`, a relative path with slashes, in a folder."""
    return f"{str(place).rstrip('/')}/{name}" if is_url(place) else Path(place) / name


@dataclass(frozen=True)
class Folder:
    """A folder at a place. `private`: where it is made on a disk, nobody but its user can read it.

    Names in it are relative paths with slashes. Every method raises DiskError where the place refuses.
    """

    place: Place
    private: bool = False

    @cached_property
    def _store(self) -> Any:
        if is_url(self.place):
            return from_url(str(self.place))
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

    def names(self, start: str = "") -> list[str]:
        """Names in the folder `start`, which ends with a slash, or in all, in order."""
        with self._refusals():
            return sorted(found["path"] for batch in obstore.list(self._store, prefix=start) for found in batch)

    def changed(self) -> dict[str, datetime]:
        """When each name was written."""
        with self._refusals():
            return {found["path"]: found["last_modified"] for batch in obstore.list(self._store) for found in batch}

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
        except BaseError as error:
            raise DiskError(f"{self.place}: {first_line(error)}") from error
