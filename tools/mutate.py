"""Mutants of the core: one operator, number or word of a module is changed, and its own tests should notice.

    python tools/mutate.py [--module scanner/audit/rank.py]... [--room audit]... [--sample 100] [--seed 0]

Works in a temporary copy of what is tracked or new in this folder. Prints a line for each survivor, in the order of the
source, and the counts; exits with 1 if there is one. Survivors that no test can tell from the original, or need, are
listed with the reason in EQUIVALENT. It is no part of the tests: a thousand mutants take minutes.
"""

import argparse
import gc
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from mutants import EQUIVALENT, Mutant, mutants

ROOT = Path(__file__).parent.parent
ROOMS = ("diffusion", "audit", "store")
# tests of a module where they are not in the file of its name, or not there alone; only fast ones
TESTS = {
    "scanner/diffusion/baselines.py": ("test_covariance", "test_formulas", "test_trace"),
    "scanner/diffusion/lengths.py": ("test_lengths", "test_formulas", "test_covariance"),
    "scanner/diffusion/schedule.py": ("test_schedule", "test_grids"),
    "scanner/diffusion/formulas.py": ("test_formulas", "test_covariance", "test_timesteps"),
    "scanner/diffusion/scores.py": ("test_scores", "test_choice"),
    "scanner/diffusion/start.py": ("test_start", "test_timesteps"),
    "scanner/audit/calibrate.py": ("test_calibrate", "test_decision"),
    "scanner/audit/evidence.py": ("test_evidence", "test_headline"),
    "scanner/audit/policy.py": ("test_policy", "test_baseline"),
    "scanner/audit/rank.py": ("test_rank", "test_calibrate"),
    "scanner/store/inputs.py": ("test_shared_scan",),
    "scanner/store/record.py": ("test_ledger",),
    "scanner/store/status.py": ("test_ledger",),
    "scanner/store/stored.py": ("test_choice", "test_first_edition"),
    "scanner/store/tables.py": ("test_ledger",),
}
UNLIMITED = 86400  # seconds
PRELOADED = ("numpy", "polars", "deltalake", "tokenizers", "jinja2", "click", "rich.progress", "diffusers")


class Bench:
    """A copy of the repository, in which mutants are tried one after another."""

    def __init__(self, folder: Path):
        self._folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        named = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, named):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        self._limits: dict[str, int] = {}
        for name in PRELOADED:
            import_module(name)
        gc.freeze()  # what is there already is not looked at again in every fork

    def survives(self, mutant: Mutant) -> bool:
        """Whether all tests of the mutant's module pass. Raises SystemExit where they fail without a mutant."""
        path = self._folder / mutant.module
        original = path.read_text(encoding="utf-8")
        if mutant.module not in self._limits:
            passed, seconds = self._run(mutant.module, UNLIMITED)
            if not passed:
                raise SystemExit(f"{mutant.module}: its tests fail as they are")
            self._limits[mutant.module] = 10 + 5 * round(seconds)
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        try:
            path.write_text(mutant.source)
            return self._run(mutant.module, self._limits[mutant.module])[0]
        finally:
            path.write_text(original)

    def _run(self, module: str, seconds: int) -> tuple[bool, float]:
        """Whether its tests pass within so many seconds of a processor, and how many they took.

        In a fork of this process, which has imported what takes long and nothing of ours. Seconds of the processor, as
        the machine may be busy, and a mutant may never end.
        """
        names = TESTS.get(module, (f"test_{Path(module).stem}",))
        if (child := os.fork()) == 0:
            os._exit(self._test(names, seconds))
        _, status, used = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code in (4, 5) and seconds == UNLIMITED:  # of a mutant: it cannot even be imported
            raise SystemExit(f"{module}: no tests in {', '.join(names)}")
        return code == 0, used.ru_utime + used.ru_stime

    def _test(self, names: Sequence[str], seconds: int) -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        sys.dont_write_bytecode = seconds != UNLIMITED  # a file that changes twice within a second would be mistaken
        sys.path.insert(0, str(self._folder))
        scratch = self._folder / "scratch"
        scratch.mkdir(exist_ok=True)
        os.environ |= {"PYTHONPATH": str(self._folder), "TMPDIR": str(scratch)}
        os.chdir(self._folder)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
            return int(pytest.main([*options, *(f"tests/{name}.py" for name in names)]))
        except BaseException:  # whatever a mutant does to pytest, it has been noticed
            return 1


def modules(asked: list[str], rooms: list[str]) -> list[str]:
    """The modules asked for, or all of these rooms."""
    found = [str(path.relative_to(ROOT)) for room in rooms for path in sorted((ROOT / "scanner" / room).glob("*.py"))]
    return asked or [name for name in found if not name.endswith("__init__.py")]


def main() -> int:
    """Try them, print survivors and counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", default=[], help="Path of a module; repeatable.")
    parser.add_argument("--room", action="append", default=[], choices=ROOMS, help="[default: all three]")
    parser.add_argument("--sample", type=int, help="Try so many mutants of each module, drawn at random.")
    parser.add_argument("--seed", type=int, default=0, help="Of the draw.")
    parser.add_argument("--list", action="store_true", help="Only list the mutants.")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="overscan-mutants-") as name:
        bench = None if asked.list else Bench(Path(name))
        for module in modules(asked.module, asked.room or list(ROOMS)):
            found = list(mutants(module, (ROOT / module).read_text(encoding="utf-8")))
            if asked.sample is not None and asked.sample < len(found):
                drawn = random.Random(asked.seed).sample(range(len(found)), asked.sample)
                found = [found[i] for i in sorted(drawn)]
            for mutant in found:
                counts["tried"] += 1
                if bench is None:
                    print(mutant)
                elif bench.survives(mutant):
                    kind = "equivalent" if mutant.key in EQUIVALENT else "survived"
                    counts[kind] += 1
                    if kind == "survived":
                        print(f"survived {mutant}", flush=True)
    tried, equivalent, survived = (counts[kind] for kind in ("tried", "equivalent", "survived"))
    killed = f": {tried - equivalent - survived} killed, {equivalent} equivalent, {survived} survived"
    print(f"{tried} mutants" + ("" if asked.list else killed))
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
