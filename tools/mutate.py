"""Mutants of the core: one operator, number or word of a module is changed, and its own tests should notice.

    python tools/mutate.py [--module scanner/audit/rank.py]... [--room audit]... [--sample 100] [--seed 0]

Works in a temporary copy of what is tracked or new in this folder. Prints a line for each survivor, in the order of the
source, and the counts; exits with 1 if there is one. Survivors that no test can tell from the original, or need, are
listed with the reason in EQUIVALENT. It is no part of the tests: a thousand mutants take half an hour.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivalent_mutants import EQUIVALENT

ROOT = Path(__file__).parent.parent
ROOMS = ("diffusion", "audit", "store")
# tests of a module where they are not in the file of its name, or not there alone; only fast ones
TESTS = {
    "scanner/diffusion/baselines.py": ("test_scores", "test_trace"),
    "scanner/diffusion/lengths.py": ("test_scores", "test_injection"),
    "scanner/audit/calibrate.py": ("test_calibrate", "test_decision"),
    "scanner/audit/rank.py": ("test_rank", "test_calibrate"),
}
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
PAIRS = (
    ("min", "max"), ("minimum", "maximum"), ("ceil", "floor"), ("sum", "mean"), ("any", "all"), ("head", "tail"),
    ("argmin", "argmax"), ("semi", "anti"), ("left", "right"), ("higher", "lower"), ("cum_min", "cum_max"),
    ("eq_missing", "ne_missing"),
)  # fmt: skip
NAMES = {old: new for pair in PAIRS for old, new in (pair, pair[::-1])} | {"NFC": "NFKC", "sqrt": "abs", "log": "exp"}
MEANS = ("sum", "mean")
SKIPPED = ("annotation", "returns", "decorator_list")
SHOWN = (ast.expr, ast.keyword, ast.arguments, ast.Assign, ast.AnnAssign, ast.Return)
WIDTH = 100  # of a mutant's words

Put = Callable[[ast.AST], None]  # puts a node into the tree, in the place of another


@dataclass(frozen=True)
class Mutant:
    """A changed module. `key` names the change whatever lines stand before it."""

    module: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """`module: before -> after`."""
        return f"{self.module}: {self.before} -> {self.after}"

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {_cut(self.before)} -> {_cut(self.after)}"


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its source."""
    tree = ast.parse(source)
    for put, node, parent in _places(tree):
        for changed in _changes(node):
            # a number or a name says little without what it stands in
            shown = parent if isinstance(node, ast.Constant | ast.Name) and isinstance(parent, SHOWN) else None
            before = _words(shown or node)
            put(ast.copy_location(changed, node))
            yield Mutant(module, node.lineno, before, _words(shown or changed), ast.unparse(tree))
            put(node)


def _places(node: ast.AST) -> Iterator[tuple[Put, Any, ast.AST]]:
    """Every node that may change, how to replace it, and its parent: no docstring, annotation, import or message."""
    for field, value in ast.iter_fields(node):
        if field in SKIPPED or isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or _is_silent(child):
                continue

            def put(new: ast.AST, parent: ast.AST = node, field: str = field, i: int = i) -> None:
                held = getattr(parent, field)
                if isinstance(held, list):
                    held[i] = new
                else:
                    setattr(parent, field, new)

            yield put, child, node
            if not isinstance(child, ast.Raise):  # what an error says is not held to the letter
                yield from _places(child)


def _is_silent(node: ast.AST) -> bool:
    """A docstring, or what a dataclass shows of itself."""
    match node:
        case ast.Expr(ast.Constant()) | ast.keyword("repr"):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                yield ast.Compare(left, [*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in SWAPS:
            yield ast.BinOp(left, SWAPS[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(SWAPS[type(op)](), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Raise():
            yield ast.Pass()
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1 if isinstance(value, int) or not value else value * 1.1)
        case ast.Constant(value=str(value)) if value in NAMES:
            yield ast.Constant(NAMES[value])
        case ast.Name(id) if id in NAMES:
            yield ast.Name(NAMES[id])
        case ast.Attribute(value, attr) if attr in NAMES:
            yield ast.Attribute(value, NAMES[attr])
        case ast.Call(ast.Attribute(_, attr)) if attr in MEANS and (moved := _square_last(node)):
            yield moved


def _square_last(node: ast.expr) -> ast.expr | None:
    """`square(x).sum(...).mean(...)` as `square(x.sum(...).mean(...))`."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("np"), "square"), [inner]):
            return node
        case ast.Call(ast.Attribute(inner, attr), args, keywords) if attr in MEANS and (square := _square_last(inner)):
            assert isinstance(square, ast.Call)
            meant = ast.Call(ast.Attribute(square.args[0], attr), args, keywords)
            return ast.Call(square.func, [meant], [])
    return None


def _words(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _cut(words: str) -> str:
    return words if len(words) <= WIDTH else words[: WIDTH - 1] + "…"


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
        self._limits: dict[str, float] = {}

    def survives(self, mutant: Mutant) -> bool:
        """Whether all tests of the mutant's module pass. Raises SystemExit where they fail without a mutant."""
        path = self._folder / mutant.module
        original = path.read_text()
        if mutant.module not in self._limits:
            started = time.monotonic()
            if not self._passes(mutant.module, 600):
                raise SystemExit(f"{mutant.module}: its tests fail as they are")
            self._limits[mutant.module] = 10 + 5 * (time.monotonic() - started)
        try:
            path.write_text(mutant.source)
            return self._passes(mutant.module, self._limits[mutant.module])
        finally:
            path.write_text(original)

    def _passes(self, module: str, seconds: float) -> bool:
        names = TESTS.get(module, (f"test_{Path(module).stem}",))
        options = ["-x", "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, *(f"tests/{name}.py" for name in names)]
        clean = {"PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=os.environ | clean, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode in (4, 5):
            raise SystemExit(f"{module}: no tests in {', '.join(names)}\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.returncode == 0


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
            found = list(mutants(module, (ROOT / module).read_text()))
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
