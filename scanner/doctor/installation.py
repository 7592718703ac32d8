"""What is installed, and whose it is."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from engines import quiet
from engines.installed import install_line
from scanner.doctor.finding import Asked, Finding
from scanner.origin import elsewhere

DISTRIBUTION = "overscan"
OLDEST = (3, 11)
OURS = ("scanner", "engines")
DEVELOPERS = ("dev", "docs", "release", "train")  # extras that no scan needs


def python(asked: Asked) -> Iterator[Finding]:
    """The interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if sys.version_info < OLDEST:
        yield Finding("python", "problem", found, f"use Python {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield Finding("python", "ok", found)


def packages(asked: Asked) -> Iterator[Finding]:
    """Versions of overscan and of what it always needs."""
    needed = [name for name, extra in _requirements() if extra is None]
    versions = {name: _version(name) for name in (DISTRIBUTION, *needed)}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing := [name for name, version in versions.items() if version is None]:
        remedy = f"pip install {' '.join(missing)}"
        yield Finding("packages", "problem", f"{found or 'none'}; no {', '.join(missing)}", remedy)
    else:
        yield Finding("packages", "ok", found)


def extras(asked: Asked) -> Iterator[Finding]:
    """Each optional extra: installed, or how to install it."""
    by_extra: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra is not None and extra not in DEVELOPERS:
            by_extra.setdefault(extra, []).append(name)
    for extra, names in by_extra.items():
        versions = {name: _version(name) for name in names}
        held = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        missing = ", ".join(name for name, version in versions.items() if version is None)
        if not missing:
            yield Finding(f"extra {extra}", "ok", held)
            continue
        beside = {"gpu": "cpu", "cpu": "gpu"}.get(extra)
        remedy = f"if you need it: {install_line(extra)}"
        if beside:
            remedy += f", and never beside [{beside}]"
        yield Finding(f"extra {extra}", "note", f"{held}; no {missing}" if held else f"no {missing}", remedy)


def onnxruntime_owners(asked: Asked) -> Iterator[Finding]:
    """Two packages own the folder `onnxruntime`: the files of one lie over those of the other."""
    owners = sorted({*_owners("onnxruntime")})
    versions = ", ".join(f"{name} {_version(name)}" for name in owners)
    if len(owners) > 1:
        remedy = f"pip uninstall {' '.join(owners)}, then install the one that you need"
        yield Finding("ONNX Runtime", "problem", f"{versions} own one folder and overwrite each other", remedy)
    elif owners:
        yield Finding("ONNX Runtime", "ok", versions)


def names(asked: Asked) -> Iterator[Finding]:
    """`scanner` and `engines` are common names: whether they are overscan's."""
    root = Path(__file__).parent.parent.parent
    for name in OURS:
        others = sorted({*_owners(name)} - {DISTRIBUTION})
        place = elsewhere(name, root)
        if place is not None:
            remedy = "take that folder off PYTHONPATH, or leave it"
            yield Finding(f"package {name}", "problem", f"comes from {place}, not from {root}", remedy)
        elif others:
            remedy = f"pip uninstall {' '.join(others)}, then {install_line(force=True)}"
            yield Finding(f"package {name}", "problem", f"{', '.join(others)} owns a package of that name too", remedy)
        else:
            yield Finding(f"package {name}", "ok", str(root / name))


def silence(asked: Asked) -> Iterator[Finding]:
    """Whether every runtime was told to send nothing before it was imported."""
    unset = [name for name, value in quiet.VARIABLES.items() if os.environ.get(name) != value]
    if talking := [*quiet.spoken(), *unset]:
        remedy = "import overscan before them, and leave these variables to it"
        yield Finding("telemetry", "note", f"not all of it is off: {', '.join(talking)}", remedy)
    else:
        yield Finding("telemetry", "ok", "off, of every runtime: nothing is sent")


def _requirements() -> list[tuple[str, str | None]]:
    """[(distribution, its extra or None)] as overscan's metadata has them."""
    found = []
    for line in metadata.requires(DISTRIBUTION) or ():
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        assert name is not None
        found.append((name.group(), extra.group(1) if extra else None))
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _owners(package: str) -> list[str]:
    return list(metadata.packages_distributions().get(package, ()))
