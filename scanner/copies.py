"""Local copies of what lies at places: fetched where it is read, put there where it was written.

Of a local place there is no copy: it is given as the path that it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engines.cache import cache_folder
from engines.partial import partial_folder, prefix, sweep
from scanner.disk import writing
from scanner.errors import PlaceError, RemoteError, ScannerError
from scanner.identity import identity
from scanner.objects import Folder
from scanner.places import Place, is_url, place_of

ATTEMPTS = 20  # to change a file that others change at the same time
Made = TypeVar("Made")


def here(place: Place) -> Path:
    """A folder, or a file, as a local path: fetched into the cache folder where it is on an object store.

    What is fetched is found again by its URL and the e_tags of all that is in it. Raises ScannerError.
    """
    if not is_url(place):
        return Path(place)
    url = str(place_of(place))
    folder, only = Folder(url), ""
    listed = folder.listed()
    if not listed:  # a file, of its folder
        folder, only = _folder_of(url)
        listed = [found] if (found := folder.look(only)) else []
    if not listed:
        raise PlaceError(f"{url}: nothing is there: name another place")
    key = identity({"url": url, "files": sorted([found["path"], found["size"], found["e_tag"]] for found in listed)})
    kept = cache_folder() / "fetched" / key
    if not kept.is_dir():
        with writing(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            sweep(kept.parent, prefix(kept))
            with partial_folder(kept.parent, prefix(kept), 0o700) as partial:
                for found in listed:
                    folder.fetch(found["path"], partial / found["path"])
                try:
                    partial.rename(kept)
                except OSError:  # another process was first
                    if not kept.is_dir():
                        raise
    return kept / only


def is_file(place: Place) -> bool:
    """Whether a file is there. Raises ScannerError, also where a bucket is not."""
    if not is_url(place):
        return Path(place).is_file()
    folder, name = _folder_of(str(place_of(place)))
    folder.names(f"{name}/")  # a bucket that is not there
    return folder.look(name) is not None


def check(out: Place, refuse: Callable[[Path], object]) -> None:
    """Let `refuse` look at the file that is at `out`, if one is, before any work. Raises what it does, of `out`."""
    if not is_url(out):
        refuse(Path(out))
    elif is_file(out):
        with _said_of(str(out), here(out)):
            refuse(here(out))


@contextmanager
def written(out: Place) -> Iterator[Path]:
    """A local folder to write to, which becomes the folder `out`: `out` itself, or one whose files are put there after.

    It holds what is there already. On an object store files appear one by one; those that are gone are removed last.
    """
    if not is_url(out):
        yield Path(out)
        return
    url = str(place_of(out))
    folder = Folder(url)
    with _work(url) as local:
        local.mkdir()
        before = folder.names()
        for name in before:
            folder.fetch(name, local / name)
        yield local
        after = sorted(str(file.relative_to(local)) for file in local.rglob("*") if file.is_file())
        for name in after:
            folder.put(name, local / name)
        for name in set(before) - set(after):
            folder.delete(name)


def change(out: Place, write: Callable[[Path], Made]) -> Made:
    """Give `write` the file `out` to write or to change, as a local path, and return what it returns.

    On an object store it gets a copy of what is there, and is asked again where another process has put something else
    there meanwhile: neither is lost. Raises ScannerError.
    """
    if not is_url(out):
        return write(Path(out))
    url = str(place_of(out))
    folder, name = _folder_of(url)
    for _ in range(ATTEMPTS):
        with _work(url) as local:
            seen = folder.look(name)
            if seen is not None:
                folder.fetch(name, local)
            made = write(local)
            if folder.exchange(name, local.read_bytes(), seen):
                return made
    raise RemoteError(f"{url}: other processes change it again and again: run the same command again")


def _folder_of(url: str) -> tuple[Folder, str]:
    parent, _, name = url.rpartition("/")
    return Folder(parent), name


@contextmanager
def _work(url: str) -> Iterator[Path]:
    """A path for the copy of what is at a URL, gone afterwards. What is refused of it is said of the URL."""
    work = cache_folder() / "written"
    work.mkdir(parents=True, exist_ok=True)
    sweep(work, "out-")
    with partial_folder(work, "out-", 0o700) as partial:
        local = partial / "at" / url.rpartition("/")[2]  # who writes may lock the folder, and that one is locked
        local.parent.mkdir()
        with _said_of(url, local):
            yield local


@contextmanager
def _said_of(url: str, local: Path) -> Iterator[None]:
    try:
        yield
    except ScannerError as error:
        error.args = (str(error).replace(str(local), url),)
        raise
