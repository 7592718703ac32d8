"""What a report rests on, as one statement that can be checked: hashes of its files, of the dataset's and the model's.

The form is an in-toto Statement v1 (https://github.com/in-toto/attestation), which signing tools take as it is; nothing
is signed here. It says what was scanned, with what and what came of it, and not that a model memorized anything.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines.manifest import FILE as MANIFEST
from engines.manifest import sha256
from scanner.audit.summary import as_json as summary_as_json
from scanner.copies import here
from scanner.dataset import readers
from scanner.errors import InputError, PlaceError, ScannerError, first_line
from scanner.places import Place, inside, is_url
from scanner.report.formats import FILES
from scanner.report.read import read_summary
from scanner.store.record import RunRecord
from scanner.store.stored import StoredScan

TYPE, PREDICATE = "https://in-toto.io/Statement/v1", "urn:overscan:evidence:1"
METHOD = {
    "name": "overestimation in the first denoising steps, without generating an image",
    "paper": "arXiv 2509.25705, How Diffusion Models Memorize",
}
LIMITS = (
    "a flagged caption is one whose score stands out; whether the model copies an image is another question",
    "memorization that no caption of the dataset triggers is not looked at",
    "a ranking says nothing of false alarms; a decision bounds them by captions known to be benign",
)


def statement(report: Path, stored: StoredScan, by: str | None = None) -> dict[str, Any]:
    """The statement of a report folder and of the scan that it is of. Raises ScannerError where they do not fit.

    `by`: who ran it, in their own words. Files on object stores are named without a hash.
    """
    summary = read_summary(report)
    if summary.scan_id != stored.scan_id:
        raise ScannerError(f"{report}: of scan {summary.scan_id}, the store's is {stored.scan_id}: name its --scan-id")
    runs, base = (stored.record, *stored.earlier), stored.record.base
    return {
        "_type": TYPE,
        "subject": [_described(report / name, name) for name in FILES],
        "predicateType": PREDICATE,
        "predicate": {
            "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "by": by,
            "method": METHOD,
            "dataset": {"files": [*_dataset(runs)], "notes": stored.notes},
            "model": _model(stored.record.model),
            "base": None if base is None else _model(base.path),
            "runs": [_run(run) for run in runs],
            "result": summary_as_json(summary),
            "limits": [*LIMITS],
        },
    }


def differences(found: Mapping[str, Any], report: Path) -> list[str]:
    """What is not as a statement says, in sentences: of the report's files, the dataset's and the model's.

    Raises ScannerError for what is no statement of ours.
    """
    try:
        if (found["_type"], found["predicateType"]) != (TYPE, PREDICATE):
            raise ScannerError(f"a statement of {found['predicateType']}; this overscan reads {PREDICATE}")
        predicate = found["predicate"]
        named = [(f"report file {item['name']}", report / item["name"], item) for item in found["subject"]]
        for what in ("dataset", "model", "base"):
            named += [(f"{what} file {item['name']}", item["name"], item) for item in _files(predicate, what)]
        return [said for what, path, item in named if (said := _difference(what, path, item)) is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise ScannerError(f"no statement of evidence ({error!r})") from error


def count(found: Mapping[str, Any]) -> int:
    """Files whose hashes a statement has."""
    predicate = found["predicate"]
    items = [*found["subject"], *(item for what in ("dataset", "model", "base") for item in _files(predicate, what))]
    return sum("digest" in item for item in items)


def _files(predicate: Mapping[str, Any], what: str) -> Sequence[Mapping[str, Any]]:
    """Those of a part of a statement; of a base model, none where there is none, or the statement is older."""
    if what == "base" and predicate.get(what) is None:
        return []
    files: Sequence[Mapping[str, Any]] = predicate[what]["files"]
    return files


def _difference(what: str, place: Place, item: Mapping[str, Any]) -> str | None:
    if "digest" not in item:
        return None
    try:
        return None if sha256(here(place)) == item["digest"]["sha256"] else f"{what}: another content"
    except PlaceError as error:
        return f"{what}: {error}"
    except OSError as error:
        return f"{what}: {first_line(error)}"


def _dataset(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """Each file that any of the runs read, once."""
    seen: set[str] = set()
    for run in runs:
        try:
            rows = readers.read(run.inputs, run.column, run.limit, dialect=run.dialect).without(run.left_out)
        except InputError:
            continue  # gone: the scan's notes say so
        seen |= rows.files.keys()
    for file in sorted(seen):
        yield {"name": file} if is_url(file) else _described(Path(file), file)


def _model(path: str) -> dict[str, Any]:
    """The bundle's manifest, which holds the hashes of its other files; of a checkpoint, every file."""
    folder = here(path)
    manifest = folder / MANIFEST
    files = [manifest] if manifest.exists() else sorted(path for path in folder.rglob("*") if path.is_file())
    named = [(file, str(inside(path, file.relative_to(folder).as_posix()))) for file in files]
    return {"name": Path(path).name, "files": [_described(file, name) for file, name in named]}


def _run(record: RunRecord) -> dict[str, Any]:
    reference = None if record.reference is None else asdict(record.reference)
    return {
        "inputs": list(record.inputs),
        "limit": record.limit,
        "left_out": list(record.left_out),
        "settings": asdict(record.config),
        "reference": reference,
        "base": None if record.base is None else asdict(record.base),
        "computed_by": {"backend": record.backend, "precision": record.precision, "provider": record.provider},
        "versions": dict(record.versions),
    }


def _described(path: Path, name: str) -> dict[str, Any]:
    try:
        return {"name": name, "digest": {"sha256": sha256(path)}}
    except OSError as error:
        raise ScannerError(f"{path}: cannot be read ({first_line(error)}): needed to hash it") from error


def read(path: Path) -> dict[str, Any]:
    """A statement's file. Raises ScannerError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScannerError(f"{path}: no statement of evidence ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise ScannerError(f"{path}: no statement of evidence: needed what `overscan evidence` wrote")
    return found
