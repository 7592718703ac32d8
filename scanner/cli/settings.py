"""The file that settings are read from. This module knows no command: it is told which keys there are."""

import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from scanner.errors import ConfigError

FILES = ("overscan.toml", "pyproject.toml")  # looked for in the working directory, in this order


def find_file(folder: Path) -> Path | None:
    """The configuration file of a folder: overscan.toml, else a pyproject.toml with a [tool.overscan] table."""
    files = (folder / name for name in FILES)
    return next(
        (file for file in files if file.is_file() and (file.name == FILES[0] or "overscan" in _tools(file))), None
    )


def load(file: Path, known: Mapping[str, Collection[str]]) -> dict[str, dict[str, Any]]:
    """Settings by command. `known`: the keys of every command.

    A key outside the tables is for every command that knows it; a table named after a command is for that one, and
    stronger. Raises ConfigError, naming the key, for what no command knows.
    """
    table = _tools(file).get("overscan", {}) if file.name == FILES[1] else _parse(file)
    shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key in shared:
        if not any(key in keys for keys in known.values()):
            raise _unknown(file, key, {key for keys in known.values() for key in keys})
    for command in table.keys() - shared.keys():
        if command not in known:
            raise _unknown(file, f"[{command}]", known)
        if not table[command].keys() <= set(known[command]):
            key = min(table[command].keys() - set(known[command]))
            raise _unknown(file, f"{command}.{key}", known[command])
    return {
        command: {key: value for key, value in shared.items() if key in keys} | table.get(command, {})
        for command, keys in known.items()
    }


def _tools(file: Path) -> dict[str, Any]:
    tools: dict[str, Any] = _parse(file).get("tool", {})
    return tools


def _parse(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: no readable TOML ({error}): repair or remove it") from error


def _unknown(file: Path, key: str, known: Collection[str]) -> ConfigError:
    near = get_close_matches(key.rpartition(".")[2].strip("[]"), known, 1)
    meant = f", did you mean {near[0]}?" if near else ""
    return ConfigError(f"{file}: {key} is unknown{meant}; there are {', '.join(sorted(known))}")
