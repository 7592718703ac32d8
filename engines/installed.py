"""How overscan was installed, and so the line that adds an extra to it: what a message tells, a user can paste.

An installer notes where a package came from that no index gave, in direct_url.json (PEP 610).
"""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "overscan"
ROOT = Path(__file__).parent.parent  # of the sources that run


def install_line(*extras: str, force: bool = False) -> str:
    """The command that installs overscan with these extras from where it came from; `force`: again, if it is there."""
    return " ".join(["pip install", *(["--force-reinstall"] if force else []), target(_origin(), extras)])


def repair_line() -> str:
    """The command that puts overscan's own files back as they were."""
    origin = _origin()
    if origin is None or not _editable(origin):
        return install_line(force=True)
    return f'git -C "{_path(origin)}" checkout -- scanner engines'


def target(origin: str | None, extras: tuple[str, ...] = ()) -> str:
    """What pip is told to install. `origin`: the text of direct_url.json; None: it came from an index.

    >>> target('{"url": "file:///srv/overscan", "dir_info": {"editable": true}}', ("cpu", "export"))
    '-e "/srv/overscan[cpu,export]"'
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    if origin is None:
        return f'"{DISTRIBUTION}{wanted}"' if extras else DISTRIBUTION
    path = _path(origin)
    if path is not None:
        return f'{"-e " if _editable(origin) else ""}"{path}{wanted}"'
    noted = json.loads(origin)
    url, version_control = noted["url"], noted.get("vcs_info")
    if version_control is not None:
        revision = version_control.get("requested_revision") or version_control["commit_id"]
        url = f"{version_control['vcs']}+{url}@{revision}"
    return f'"{DISTRIBUTION}{wanted} @ {url}"'


def _path(origin: str) -> str | None:
    """The folder, wheel or sdist on this machine; None for one of elsewhere."""
    noted = json.loads(origin)
    url = urlsplit(noted["url"])
    return url2pathname(url.path) if url.scheme == "file" and "vcs_info" not in noted else None


def _editable(origin: str) -> bool:
    return bool(json.loads(origin).get("dir_info", {}).get("editable"))


def _origin() -> str | None:
    try:
        return distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:  # the sources run as they lie
        return json.dumps({"url": ROOT.as_uri(), "dir_info": {"editable": True}})
