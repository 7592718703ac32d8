"""Places: folders of this machine and of object stores, how they are named, and what is wrong where one fails.

What lies at them is `scanner.objects`'.
"""

import re
from pathlib import Path

from scanner.disk import URL
from scanner.errors import PlaceError, RemoteError, ScannerError, chain

Place = str | Path  # a URL as text, or a path
SCHEMES = ("s3://", "gs://", "az://")
RETRIES, PATIENCE = 8, 60.0  # of one request, and seconds for all of them: then the object store is given up
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
NOT_THERE = re.compile(r"NoSuchBucket|NoSuchContainer|ContainerNotFound|bucket does not exist", re.IGNORECASE)
REFUSED = re.compile(
    r"\b40[13] |Forbidden|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|Unauth|credential", re.I
)
OF_A_STORE = re.compile(r"Error performing [A-Z]+ |Generic \w+ error|Generic \{ store|object-store error")
UNREACHED = re.compile(r"error sending request|HTTP error|client error|timed? ?out|dns error|Connection|\b5\d\d ", re.I)


def is_url(place: Place) -> bool:
    """Whether a place is of an object store."""
    return URL.match(str(place)) is not None


def place_of(named: Place) -> Place:
    """A place as it is named: a URL as text, else a path. Raises PlaceError for URLs of other kinds."""
    if not is_url(named):
        return Path(named)
    if not isinstance(named, str) or not named.startswith(SCHEMES):
        raise PlaceError(f"{named}: needed a local path or a URL that begins with one of {', '.join(SCHEMES)}")
    return named.rstrip("/")


def absolute(place: Place) -> str:
    """A place as it can be found from any working folder."""
    return str(place) if is_url(place) else str(Path(place).absolute())


def same(one: Place, other: Place) -> bool:
    """Whether two places are one, links of a disk followed."""
    if is_url(one) or is_url(other):
        return str(one).rstrip("/") == str(other).rstrip("/")
    return Path(one).resolve() == Path(other).resolve()


def options(place: Place) -> dict[str, str] | None:
    """What deltalake is told of a place: nothing of a local one."""
    if not is_url(place):
        return None
    return {"max_retries": str(RETRIES), "aws_conditional_put": "etag"}


def failure(place: Place, error: BaseException) -> ScannerError | None:
    """The refusal where an error, of whatever library, comes from an object store; None where it tells of none."""
    if not is_url(place):
        return None
    said = "\n".join(map(str, chain(error)))
    why = " ".join(COLOURS.sub("", str(error)).partition("Debug source")[0].split())[:300]
    if NOT_THERE.search(said):
        return PlaceError(f"{place}: no such bucket or container ({why}): make it, or name another place")
    if REFUSED.search(said):
        return RemoteError(
            f"{place}: the object store refuses these credentials, or there are none ({why}): look at the environment "
            "(AWS_ACCESS_KEY_ID and others, docs/fleet.md) and at their rights; what is committed stays"
        )
    if UNREACHED.search(said):
        return RemoteError(
            f"{place}: the object store cannot be reached ({why}): look at the network and the address, then run the "
            "same command again; what is committed stays"
        )
    return None


def unread(place: Place, error: BaseException) -> ScannerError | None:
    """The same, of reading what others wrote: an error about a file may quote it, and so hold any word."""
    return failure(place, error) if any(OF_A_STORE.search(str(found)) for found in chain(error)) else None


def beside(place: Place, suffix: str) -> Place:
    """The place whose name is longer by `suffix`."""
    return f"{str(place).rstrip('/')}{suffix}" if is_url(place) else Path(f"{Path(place).absolute()}{suffix}")


def inside(place: Place, name: str) -> Place:
    """What lies at `name`, a relative path with slashes, in a folder."""
    return f"{str(place).rstrip('/')}/{name}" if is_url(place) else Path(place) / name
