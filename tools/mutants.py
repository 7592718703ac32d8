"""Mutants of a module: its syntax tree with one operator, number, name or refusal changed."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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

# what no test can tell from the original, or needs to, by `Mutant.key`, with the reason
EQUIVALENT = {
    "scanner/audit/diagnose.py: abs(distance) > max(chance, TOLERATED) -> abs(distance) >= max(chance, TOLERATED)": (
        "a distance that equals what chance explains to the last digit"
    ),
    "scanner/audit/rank.py: 1 + 1e-12 -> 1 + 1.1000000000000002e-12": "an allowance for the last digit",
    "scanner/audit/rank.py: pl.col('p_value') <= rule.fpr * ROUNDING -> pl.col('p_value') < rule.fpr * ROUNDING": (
        "a p-value that equals the allowance to the last digit"
    ),
    "scanner/audit/headline.py: expected >= 10 -> expected > 10": "10 is written alike both ways",
    "scanner/audit/diagnose.py: row['distance'] > 0 -> row['distance'] >= 0": "only of distances that differ from 0",
    "scanner/audit/diff.py: was & now -> was | now": "prompts flagged on one night only have a change already",
    "scanner/audit/diff.py: gap > ABSOLUTE + RELATIVE * pl.col('score_before').abs() -> gap >= ABSOLUTE + RELATIVE * "
    "pl.col('score_before').abs()": "a gap that equals the rounding allowed to the last digit",
    "scanner/audit/diff.py: maintain_order=True -> maintain_order=False": "its rows are joined by prompt_id next",
}

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
