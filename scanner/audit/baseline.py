"""Findings that somebody has seen and accepted: a file that only grows, but for entries that lapse."""

import datetime
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scanner.errors import ScannerError
from scanner.files import alone, replacing

FORMAT = "overscan baseline 1"


@dataclass(frozen=True)
class Accepted:
    """When, and under which scan and score, a finding was accepted. `expires`: its last day; None: for good."""

    date: str
    scan_id: str
    score: str
    reason: str | None = None
    expires: str | None = None


@dataclass(frozen=True)
class Baseline:
    """Accepted findings. `scan_id`, `score`, `date`: of who wrote last, and of entries that are not in `accepted`."""

    prompt_ids: tuple[str, ...]
    scan_id: str
    score: str
    date: str
    accepted: Mapping[str, Accepted] = field(default_factory=dict)

    def entry(self, prompt_id: str) -> Accepted:
        """What is known of an accepted finding."""
        return self.accepted.get(prompt_id, Accepted(self.date, self.scan_id, self.score))

    def known(self, today: datetime.date) -> list[str]:
        """The findings that are accepted on that day."""
        return [i for i in self.prompt_ids if (last := self.entry(i).expires) is None or last >= today.isoformat()]

    def elsewhere(self, prompt_ids: Iterable[str], scan_id: str, score: str) -> int:
        """How many of these were accepted under another model, setting or score."""
        held = set(self.prompt_ids).intersection(prompt_ids)
        entries = map(self.entry, held)
        return sum((entry.scan_id, entry.score) != (scan_id, score) for entry in entries)

    def with_more(self, prompt_ids: Collection[str], entry: Accepted) -> "Baseline":
        """The union of these and more; those that were accepted before keep their entry, but for one that has lapsed.

        An entry with a reason or a last day of its own takes the place of the former one.
        """
        again = {i for i in self.prompt_ids if (last := self.entry(i).expires) is not None and last < entry.date}
        explicit = entry.reason is not None or entry.expires is not None
        kept = {i: self.entry(i) for i in self.prompt_ids}
        added = {i: entry for i in prompt_ids if explicit or i not in kept or i in again}
        both = kept | added
        head = replace(self, scan_id=entry.scan_id, score=entry.score, date=entry.date)
        return replace(head, prompt_ids=tuple(sorted(both)), accepted={i: both[i] for i in sorted(both)})


def read_baseline(path: Path) -> Baseline:
    """Read what `accept` wrote. Raises ScannerError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise ScannerError(f"{path}: format {raw['format']!r}, this overscan reads {FORMAT!r}")
        ids = raw["prompt_ids"]
        if not isinstance(ids, list) or not all(is_id(value) for value in ids):
            raise ValueError("prompt_ids: needed a list of ids, 32 hexadecimal digits each")
        accepted = {i: _entry(entry) for i, entry in raw.get("accepted", {}).items() if i in set(ids)}
        return Baseline(tuple(ids), raw["scan_id"], raw["score"], raw["date"], accepted)
    except FileNotFoundError:
        raise ScannerError(
            f"{path}: no such file; `overscan report ... --write-baseline {path}` or `overscan accept` makes it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScannerError(
            f"{path}: not a baseline ({error!r}): move it away, and write a new one with --write-baseline"
        ) from error


def accept(path: Path, prompt_ids: Collection[str], entry: Accepted) -> tuple[Baseline, int]:
    """Add findings to the baseline at a path, which need not exist yet; returns it, and how many it had not known.

    Whole or not at all, and one after the other where several do so at once. Raises ScannerError where another file is
    in its place, which stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        none = Baseline((), entry.scan_id, entry.score, entry.date)
        former = read_baseline(path) if path.exists() else none
        grown = former.with_more(prompt_ids, entry)
        with replacing(path) as partial:
            partial.write_text(as_json(grown), encoding="utf-8")
    return grown, len(set(prompt_ids) - set(former.known(datetime.date.fromisoformat(entry.date))))


def as_json(baseline: Baseline) -> str:
    """A baseline as its file has it: sorted, an id per line, so that a diff shows what was accepted."""
    head = {"format": FORMAT, "scan_id": baseline.scan_id, "score": baseline.score, "date": baseline.date}
    accepted = {i: asdict(entry) for i, entry in baseline.accepted.items()}
    return json.dumps(head | {"prompt_ids": list(baseline.prompt_ids), "accepted": accepted}, indent=1) + "\n"


def is_id(value: object) -> bool:
    """Whether this is a prompt_id."""
    return isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef")


def _entry(raw: Mapping[str, Any]) -> Accepted:
    expires = raw.get("expires")
    if expires is not None:
        datetime.date.fromisoformat(expires)
    return Accepted(raw["date"], raw["scan_id"], raw["score"], raw.get("reason"), expires)
