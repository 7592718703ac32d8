"""The model, what can run it here, and the store."""

from collections.abc import Iterator
from pathlib import Path

from engines import BACKENDS, Bundle, BundleError, EngineError, is_checkpoint, prove, read_bundle
from engines.installed import repair_line
from scanner.demo import BUNDLE
from scanner.doctor.finding import Asked, Finding
from scanner.doctor.machine import writable
from scanner.errors import ScannerError
from scanner.identity import shown
from scanner.model import Model
from scanner.store.ledger import Ledger
from scanner.store.status import status

CHECKPOINT_BACKENDS = ("torch", "torch-cuda")


def bundle(asked: Asked) -> Iterator[Finding]:
    """Every file of the bundle, against the hashes in its manifest."""
    folder = asked.model or asked.bundle
    if is_checkpoint(folder):
        remedy = f"for the faster backends: overscan export {folder} BUNDLE"
        yield Finding("model", "note", f"{folder}: a diffusers checkpoint, which only torch runs", remedy)
        return
    try:
        manifest, _ = read_bundle(folder, asked.backend)
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
    checkpoint = asked.model if asked.model is not None and is_checkpoint(asked.model) else None
    for name in BACKENDS:
        folder = checkpoint if name in CHECKPOINT_BACKENDS else asked.bundle
        if folder is None:
            yield Finding(f"backend {name}", "ok", "not tried: it runs diffusers checkpoints, name one with --model")
            continue
        try:
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
        opened = prove(Model(asked.model or BUNDLE, asked.backend).bundle)
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
    if folder.exists() and not folder.is_dir():
        yield Finding("store", "problem", f"{folder} is no folder", "name another --store")
        return
    if not writable(folder):
        yield Finding("store", "problem", f"{folder} cannot be written", "name a --store of yours, or change its owner")
        return
    if not _tables(folder):
        yield Finding("store", "note", f"{folder}: no store there yet", "none needed: `overscan scan` makes it")
        return
    try:
        held = status(Ledger(folder))
    except ScannerError as error:
        yield Finding("store", "problem", str(error))
        return
    rows = sum(sum(scan.rows.values()) for scan in held.scans)
    size = sum(table.bytes for table in held.tables.values())
    found = f"{folder}: {len(held.scans):,} scans, {rows:,} rows, {size / 1e6:,.1f} MB"
    yield Finding("store", "ok", found)


def _tables(folder: Path) -> bool:
    return all((folder / name / "_delta_log").is_dir() for name in ("scores", "runs"))
