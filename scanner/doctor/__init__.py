"""What is wrong with an installation: a table of small checks, each giving findings.

A problem is what keeps a scan from running as asked, or from being relied on; a note is worth knowing.
"""

from collections.abc import Callable, Iterable

from scanner.doctor import installation, machine, model
from scanner.doctor.finding import Asked, Finding, Status

__all__ = ["CHECKS", "Asked", "Finding", "Status", "examine"]

CHECKS: dict[str, Callable[[Asked], Iterable[Finding]]] = {
    "python": installation.python,
    "packages": installation.packages,
    "extras": installation.extras,
    "ONNX Runtime": installation.onnxruntime_owners,
    "names": installation.names,
    "telemetry": installation.silence,
    "processor": machine.processor,
    "threads": machine.threads,
    "gpu": machine.gpu,
    "disk": machine.disk,
    "cache": machine.cache,
    "text": machine.text,
    "bundle": model.bundle,
    "backends": model.backends,
    "a scan": model.taken,
    "store": model.store,
}


def examine(asked: Asked) -> list[Finding]:
    """All findings, in the order of CHECKS. A check that fails itself is a problem like any other."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            findings += check(asked)
        except Exception as error:  # a broken installation breaks in unforeseen ways, and the rest is still worth it
            found = f"the check itself failed: {type(error).__name__}: {error}"
            findings.append(Finding(name, "problem", found, "report it, with `overscan doctor --json`"))
    return findings
