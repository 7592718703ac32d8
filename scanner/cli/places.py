"""Places on the command line: paths, URLs where they can be used, and never URLs of which pathlib would make folders.

A settings file that happens to lie in the working folder may come with somebody's data. It may say what is read; what
is written, only inside that folder. A file that --config or OVERSCAN_CONFIG names is its user's own, and may do both.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from engines.bundle import is_checkpoint
from engines.manifest import FILE as MANIFEST
from scanner.copies import here
from scanner.dataset.readers.find import SCHEMES
from scanner.disk import local
from scanner.errors import ConfigError, ScannerError
from scanner.places import is_url, place_of

SIMILAR = 0.8  # of two names, as difflib measures it: `bundl` and `bundle` are 0.91 alike
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Place(click.Path):
    """A path. `writes`: whether something is written there; `urls`: whether it may be of an object store."""

    def __init__(self, *, writes: bool = False, urls: bool = False, **options: Any):
        super().__init__(path_type=Path, **options)
        self.writes, self.urls = writes, urls

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises click.UsageError, and ConfigError where a found file leads out of the working folder."""
        text = str(value)
        if not text.strip() or "\0" in text:
            self.fail(f"{text!r} is no path: name one", param, ctx)
        try:
            place = place_of(text) if self.urls else local(text)
        except ScannerError as error:
            self.fail(str(error), param, ctx)
        found = place if isinstance(place, str) else super().convert(value, param, ctx)
        if self.writes and param is not None and ctx is not None:
            _stay_inside(text, param, ctx)
        return found


class Input(Place):
    """A path or a URL that captions are read from."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A path, or a URL as it is."""
        return str(value) if str(value).startswith(SCHEMES) else super().convert(value, param, ctx)


class Fetched(Place):
    """A file or a folder that is read, from wherever it lies."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A local path: of a copy, where the file is on an object store. Raises ScannerError."""
        return here(super().convert(value, param, ctx))


class ModelFolder(Place):
    """The folder of a bundle or a checkpoint. One that is not there is a slip of the pen; what is in it is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises click.UsageError."""
        path = super().convert(value, param, ctx)
        if isinstance(path, str):  # looked at when it is fetched
            return path
        needed = "needed a bundle (made by `overscan export`) or a diffusers checkpoint"
        if not path.is_dir():
            found = "a file" if path.exists() else f"no such folder{_meant(path)}"
            self.fail(f"{path}: {found}; {needed}", param, ctx)
        if not ((path / MANIFEST).exists() or is_checkpoint(path) or any(path.glob("*.onnx"))):
            self.fail(f"{path}: neither {MANIFEST} nor model_index.json in that folder; {needed}", param, ctx)
        return path


class Checkpoint(Place):
    """A folder, or the name of a model on the hub: owner/name, of which nothing is there as a path.

    What begins like a path of this machine, or is nearly one, is a slip of the pen: no hub is asked for it.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, which a hub id is too. Raises click.UsageError."""
        path = super().convert(value, param, ctx)
        needed = "needed a diffusers checkpoint, or a hub id like owner/name"
        if path.is_dir() and not ((path / MANIFEST).exists() or is_checkpoint(path)):
            self.fail(f"{path}: no model_index.json in that folder; {needed}", param, ctx)
        if path.is_file():
            self.fail(f"{path}: a file; {needed}", param, ctx)
        meant = "" if path.exists() else _meant(path)
        if not path.exists() and (meant or not HUB_ID.fullmatch(str(value)) or path.parent.is_dir()):
            self.fail(f"{path}: no such folder{meant}; {needed}", param, ctx)
        return path


def _meant(path: Path) -> str:
    """The folder that is nearly called so, as a question; nothing where there is none."""
    near = _near(path)
    return "" if near is None else f"; did you mean {near}?"


def _near(path: Path) -> Path | None:
    """The folder of this path, or that of the most similar names; None where nothing is similar."""
    if path.is_dir():
        return path
    if path.parent == path or (parent := _near(path.parent)) is None:
        return None
    if (parent / path.name).is_dir():
        return parent / path.name
    try:
        names = [item.name for item in parent.iterdir() if item.is_dir()]
    except OSError:
        return None
    close = get_close_matches(path.name, names, n=1, cutoff=SIMILAR)
    return parent / close[0] if close else None


def found_file(ctx: click.Context) -> Path | None:
    """The settings file that was found in the working folder, and that nobody named."""
    root = ctx.find_root()
    named = root.get_parameter_source("config") in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return None if named else root.params.get("config")


def _stay_inside(place: str, param: click.Parameter, ctx: click.Context) -> None:
    """Raises ConfigError."""
    file = found_file(ctx)
    if file is None or ctx.get_parameter_source(str(param.name)) is not ParameterSource.DEFAULT_MAP:
        return
    if is_url(place) or not Path(place).resolve().is_relative_to(Path.cwd().resolve()):
        raise ConfigError(
            f"{file}: {ctx.info_name}.{param.name} is {place!r}, outside the working folder: a settings file that "
            f"was found here may write inside it alone. If it is yours, name it: overscan --config {file} "
            f"{ctx.info_name} ..."
        )


FILE = Fetched(urls=True, dir_okay=False)
FOLDER = Fetched(urls=True, file_okay=False)
ANY_PATH = Place()
OUT_FILE = Place(writes=True, urls=True, dir_okay=False)
OUT_FOLDER = Place(writes=True, urls=True, file_okay=False)
OUT_PLACE = Place(writes=True, urls=True)  # a file or a folder
OUT_HERE = Place(writes=True, file_okay=False)  # a folder that is gone on in
NEW = Place(writes=True)
FILLED_STORE = Place(urls=True)
FILLED_FILE = Place(urls=True, dir_okay=False)
FILLED_FOLDER = Place(urls=True, file_okay=False)
ANY_PLACE = Place(urls=True)
STORE = Place(writes=True, urls=True)
INPUT = Input(urls=True)
MODEL = ModelFolder(urls=True)
CHECKPOINT = Checkpoint()
