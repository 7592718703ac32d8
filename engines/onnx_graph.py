"""What an ONNX file says of itself, read without onnx and without its weights: one walk over its protobuf.

Field numbers are those of onnx.proto. Weights are skipped by their length, so a graph of a gigabyte takes no longer
than one whose weights lie beside it.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.interface import BundleError, EngineError, TensorSpec
from engines.manifest import Component

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
DTYPES = {1: "float32", 6: "int32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}
EXTERNAL = 1  # TensorProto.DataLocation
# where a message of a kind holds others that may hold a tensor: field number, kind
WITHIN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
DEEPEST = 96  # messages within messages; a graph within a node is 3: more is no model
SAME = ("Cast", "Identity", "DequantizeLinear")  # as many rows of the same numbers
SHAPED = (*SAME, "Reshape", "Unsqueeze", "Squeeze", "Flatten")  # the same numbers


@dataclass
class Graph:
    """`inputs`, `outputs`: of the main graph; `external`: files that hold its tensors, as it names them.

    `embedded`: the rows of the table that each integer input looks its numbers up in.
    """

    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)
    embedded: dict[str, int] = field(default_factory=dict)


class _Message:
    """One protobuf message: a part of a buffer."""

    def __init__(self, buffer: mmap.mmap | bytes, start: int, end: int):
        self.buffer, self.start, self.end = buffer, start, end

    def fields(self) -> Iterator[tuple[int, "int | _Message"]]:
        """Number and value of each field: an integer, or what a length-delimited one holds. Raises ValueError."""
        at = self.start
        while at < self.end:
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            if wire == VARINT:
                value, at = self._varint(at)
                yield number, value
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            elif wire == BYTES:
                length, at = self._varint(at)
                if length > self.end - at:
                    raise ValueError("a field ends after its message")
                yield number, _Message(self.buffer, at, at + length)
                at += length
            else:
                raise ValueError(f"wire type {wire}")
            if number == 0 or at > self.end:
                raise ValueError("no such field")

    def messages(self, wanted: int) -> Iterator["_Message"]:
        """The fields of a number that hold messages or text."""
        return (value for number, value in self.fields() if number == wanted and isinstance(value, _Message))

    def number(self, wanted: int, default: int = 0) -> int:
        """The last field of a number that holds an integer."""
        found = [value for number, value in self.fields() if number == wanted and isinstance(value, int)]
        return found[-1] if found else default

    def text(self, wanted: int) -> str:
        """The last field of a number, as text."""
        return ([part.decode() for part in self.messages(wanted)] or [""])[-1]

    def decode(self) -> str:
        """All of it as text. Raises ValueError."""
        return bytes(self.buffer[self.start : self.end]).decode()

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 64, 7):
            if at >= self.end:
                raise ValueError("ends within a number")
            byte = self.buffer[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise ValueError("a number without an end")


def inspect(path: Path) -> Graph:
    """Read a graph's names, shapes, and what lies outside it. Raises BundleError where it is none."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            model, found = _Message(buffer, 0, len(buffer)), Graph()
            _find_external(model, "model", found.external, 0)
            (graph,) = model.messages(7)
            constants = {tensor.text(8): _rows(tensor) for tensor in graph.messages(5)}
            found.inputs = _specs(part for part in graph.messages(11) if part.text(1) not in constants)
            found.outputs = _specs(graph.messages(12))
            found.embedded = _embedded(graph, found.inputs, constants)
    except ValueError as error:
        raise BundleError(f"{path}: not an ONNX graph ({error}): copy the bundle again, or export again") from error
    return found


def check_graph(folder: Path, component: Component) -> Graph:
    """A component's graph, once it is what the manifest says of it and needs no file that the manifest does not list.

    Raises BundleError.
    """
    path = folder / next(iter(component.files))
    if path.suffix == ".xml":  # OpenVINO's own format, whose weights lie in the file of the same name
        if f"{path.stem}.bin" not in component.files:
            raise BundleError(f"{path}: the manifest does not list {path.stem}.bin: quantise the model again")
        return Graph()
    graph = inspect(path)
    if unlisted := sorted(graph.external - set(component.files)):
        raise BundleError(
            f"{path}: its weights lie in {', '.join(map(repr, unlisted))}, which the manifest does not list, so nobody "
            "has checked them: do not use this bundle; copy the whole bundle again, or export again"
        )
    try:
        component.check_names(path, graph.inputs, graph.outputs)
    except EngineError as error:  # another backend would not help
        raise BundleError(str(error)) from error
    for name, spec in [*component.inputs.items(), *component.outputs.items()]:
        found = graph.inputs.get(name) or graph.outputs[name]
        if found.dtype != spec.dtype or not _fits(found.shape, spec.shape):
            raise BundleError(
                f"{path}: {name} is {found.dtype} {_shown(found.shape)}, the manifest says {spec.dtype} "
                f"{_shown(spec.shape)}: export the model again"
            )
    return graph


def _fits(found: tuple[int | None, ...], needed: tuple[int | None, ...]) -> bool:
    same_rank = len(found) == len(needed)
    return same_rank and all(a == b or a is None for a, b in zip(found, needed, strict=True))


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def _find_external(message: _Message, kind: str, found: set[str], depth: int) -> None:
    """Add the files of all tensors within a message, in whatever subgraph, function or attribute they hide."""
    if depth > DEEPEST:
        raise ValueError("graphs within graphs without an end")
    if kind == "tensor":
        places = {entry.text(2) for entry in message.messages(13) if entry.text(1) == "location"}
        found |= places
        if not places and message.number(14) == EXTERNAL:
            found.add("")
        return
    for number, value in message.fields():
        if isinstance(value, _Message) and (inner := WITHIN[kind].get(number)):
            _find_external(value, inner, found, depth + 1)


def _rows(tensor: _Message) -> int:
    """The length of a tensor's first axis; dims may be packed."""
    for number, value in tensor.fields():
        if number == 1:
            return value if isinstance(value, int) else value._varint(value.start)[0]
    return 0


def _specs(parts: Iterator[_Message]) -> dict[str, TensorSpec]:
    """ValueInfoProto: name, and its tensor's type and shape; an axis without a number is None."""
    specs = {}
    for part in parts:
        (tensor,) = (tensor for kind in part.messages(2) for tensor in kind.messages(1))
        dims = [axis.number(1, -1) for shape in tensor.messages(2) for axis in shape.messages(1)]
        dtype = DTYPES.get(tensor.number(1), f"type {tensor.number(1)}")
        specs[part.text(1)] = TensorSpec(dtype, tuple(size if 0 <= size < 2**62 else None for size in dims))
    return specs


def _embedded(graph: _Message, inputs: Mapping[str, TensorSpec], constants: Mapping[str, int]) -> dict[str, int]:
    """For each integer input that a Gather looks up in a constant: how many rows that has. Nodes are in order."""
    ids = {name: name for name, spec in inputs.items() if spec.dtype.startswith("int")}
    rows, found = dict(constants), dict[str, int]()
    for node in graph.messages(1):
        takes = [part.decode() for part in node.messages(1)]
        gives, kind = [part.decode() for part in node.messages(2)], node.text(4)
        if kind in SHAPED and takes and gives and takes[0] in ids:
            ids[gives[0]] = ids[takes[0]]
        elif kind in SAME and takes and gives and takes[0] in rows:
            rows[gives[0]] = rows[takes[0]]
        elif kind == "Gather" and len(takes) == 2 and takes[1] in ids and takes[0] in rows:
            name = ids[takes[1]]
            found[name] = min(rows[takes[0]], found.get(name, rows[takes[0]]))
    return found
