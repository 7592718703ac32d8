"""The model, what can run it here, and the store."""

import secrets
from collections.abc import Iterator
from pathlib import Path

from engines import BACKENDS, Bundle, BundleError, EngineError, prove, read_bundle
from engines.installed import repair_line
from scanner.demo import BUNDLE
from scanner.doctor.finding import Asked, Finding
from scanner.doctor.machine import writable
from scanner.errors import ScannerError
from scanner.identity import shown
from scanner.model import Model
from scanner.objects import Folder
from scanner.places import Place, is_url
from scanner.store.ledger import Ledger
from scanner.store.status import status

CHECKPOINT_BACKENDS = ("torch", "torch-cuda")
TABLES, LOG = ("scores", "runs"), "_delta_log"


def bundle(asked: Asked) -> Iterator[Finding]:
    """Every file of the bundle, against the hashes in its manifest."""
    folder = asked.model or BUNDLE
    try:
        if asked.checkpoint is not None:
            remedy = f"for the faster backends: overscan export {folder} BUNDLE"
            yield Finding("model", "note", f"{folder}: a diffusers checkpoint, which only torch runs", remedy)
            return
        manifest, _ = read_bundle(asked.folder, asked.backend, reread=True)
    except EngineError as error:
        yield Finding("model", "problem", str(error), _reinstall(asked))
        return
    parts = ", ".join(manifest.components)
    found = f"{folder}: intact; {manifest.family}, {manifest.precision}, {parts}; {shown(manifest.fingerprint)}"
    yield Finding("model", "ok", found)


def _reinstall(asked: Asked) -> str:
    return "" if asked.model else f"the bundled model is damaged: {repair_line()}"


def backends(asked: Asked) -> Iterator[Finding]:
    """Each backend that could run the model, tried with its text encoder."""
    for name in BACKENDS:
        try:
            folder = asked.checkpoint if name in CHECKPOINT_BACKENDS else asked.bundle
            if folder is None:
                found = "not tried: it runs diffusers checkpoints, name one with --model"
                yield Finding(f"backend {name}", "ok", found)
                continue
            running = _words(prove(Model(folder, name).bundle))
        except BundleError:  # the model's own finding says it
            yield Finding(f"backend {name}", "note", "not tried: the model cannot be read")
        except EngineError as error:
            yield Finding(f"backend {name}", "note", f"does not run here: {error}")
        else:
            what = "the bundled model" if folder == BUNDLE else "the model"
            yield Finding(f"backend {name}", "ok", f"runs {what}: {running}")


def _words(opened: Bundle) -> str:
    return f"{opened.engine('text_encoder').provider}, {opened.precision}"


def taken(asked: Asked) -> Iterator[Finding]:
    """The backend that a scan with these arguments would run on: opened as a scan opens it."""
    try:
        opened = prove(Model(asked.folder, asked.backend).bundle)
    except EngineError as error:
        remedy = "see what each backend says, or name another --backend"
        yield Finding("a scan", "problem", f"could not run with --backend {asked.backend}: {error}", remedy)
    else:
        yield Finding("a scan", "ok", f"would run on {opened.backend}: {_words(opened)}")


def store(asked: Asked) -> Iterator[Finding]:
    """Whether the store can be read, fits this overscan, and can be written."""
    folder = asked.store
    if folder is None:
        return
    if is_url(folder):
        yield from _remote_store(str(folder))
        return
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        yield Finding("store", "problem", f"{folder} is no folder", "name another --store")
        return
    if not writable(folder):
        yield Finding("store", "problem", f"{folder} cannot be written", "name a --store of yours, or change its owner")
        return
    yield _held(folder, all((folder / name / LOG).is_dir() for name in TABLES))


def _remote_store(url: str) -> Iterator[Finding]:
    """A store needs puts that are refused where something is: tried with an object that is gone afterwards."""
    folder, name = Folder(url), f".tried-{secrets.token_hex(8)}"
    try:
        first = folder.create(name, b"1")
        second = folder.create(name, b"2")
        folder.delete(name)
        made = all(folder.names(f"{table}/{LOG}/") for table in TABLES)
    except ScannerError as error:
        yield Finding("store", "problem", str(error))
        return
    if (first, second) == (True, False):
        yield _held(url, made)
    else:
        found = f"{url}: an object store without conditional puts (If-None-Match), so scans at once would lose rows"
        yield Finding("store", "problem", found, "name a --store on another one, or on a disk")


def _held(folder: Place, made: bool) -> Finding:
    """What a store holds, or why it cannot be read."""
    if not made:
        return Finding("store", "note", f"{folder}: no store there yet", "none needed: `overscan scan` makes it")
    try:
        held = status(Ledger(folder))
    except ScannerError as error:
        return Finding("store", "problem", str(error))
    rows = sum(sum(scan.rows.values()) for scan in held.scans)
    size = sum(table.bytes for table in held.tables.values())
    found = f"{folder}: {len(held.scans):,} scans, {rows:,} rows, {size / 1e6:,.1f} MB"
    return Finding("store", "ok", found)
