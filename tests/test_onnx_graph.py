"""A graph is read as far as its names, its shapes and its files: none may lie where the manifest does not look."""

import re
import shutil
import struct
from dataclasses import replace

import pytest
from signed import part, signed
from small import BUNDLE

from engines import BundleError, EngineError, manifest, open_bundle
from engines.manifest import sha256
from engines.onnx_graph import inspect


def outside(folder, made, location, listed=()):
    """The text encoder with one weight in another file."""
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load(BUNDLE / "text_encoder.onnx")
    tensor = max(model.graph.initializer, key=lambda it: len(it.raw_data))
    weights, size = tensor.raw_data, len(tensor.raw_data)
    set_external_data(tensor, location, 0, size)
    tensor.ClearField("raw_data")
    (folder / "text_encoder.onnx").unlink()
    (folder / "text_encoder.onnx").write_bytes(model.SerializeToString())
    if not location.startswith("/"):
        (folder / location).write_bytes(weights)
    files = {name: sha256(folder / name) for name in ("text_encoder.onnx", *listed)}
    signed(folder, part("text_encoder", files=files)(made))
    return weights


@pytest.mark.parametrize(
    "location", ["weights.bin", "../weights.bin", "/etc/passwd", "./weights.bin", "unet.onnx.data"]
)
def test_weights_in_a_file_that_nobody_hashed_are_refused(linked, made, location):
    outside(linked, made, location)
    with pytest.raises(
        BundleError, match=re.escape(f"its weights lie in {location!r}, which the manifest does not list")
    ):
        open_bundle(linked, "cpu")


def test_weights_in_a_file_of_another_network_are_not_this_ones(linked, made):
    outside(linked, made, "weights.bin")
    others = part(
        "unet", files={"unet.onnx": sha256(linked / "unet.onnx"), "weights.bin": sha256(linked / "weights.bin")}
    )
    signed(linked, others(manifest.parse(linked / manifest.FILE)))
    with pytest.raises(BundleError, match=r"text_encoder\.onnx: its weights lie in 'weights\.bin'"):
        open_bundle(linked, "cpu")


def test_weights_in_a_listed_file_are_read_and_verified(linked, made):
    import numpy as np

    weights = outside(linked, made, "weights.bin", ["weights.bin"])
    ids = {"input_ids": np.arange(16)[None]}
    found, expected = (open_bundle(path, "cpu").engine("text_encoder").run(ids) for path in (linked, BUNDLE))
    np.testing.assert_array_equal(found["encoder_hidden_states"], expected["encoder_hidden_states"])
    (linked / "weights.bin").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"weights\.bin: sha256 .* damaged"):
        open_bundle(linked, "cpu")


def hidden_in(where, location):
    """A graph that refers to a file somewhere else than in its own initializers."""
    import onnx
    from onnx import TensorProto, helper
    from onnx.external_data_helper import set_external_data

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.raw_data = b"\0\0\0\0"
    set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "inner", [], [], [tensor])
    sparse = onnx.SparseTensorProto(values=tensor)
    nodes = {
        "a constant's value": [constant],
        "a branch": [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        "a branch of a branch": [helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph(
            [helper.make_node("If", ["c"], ["z"], then_branch=inner)], "middle", [], []))],
        "a sparse tensor": [helper.make_node("Constant", [], ["w"], sparse_value=sparse)],
        "a list of tensors": [helper.make_node("Any", [], ["w"], many=[tensor])],
    }  # fmt: skip
    graph = helper.make_graph(nodes.get(where, []), "main", [x], [y], [])
    model = helper.make_model(graph)
    if where == "a function":
        model.functions.append(helper.make_function("d", "f", [], ["w"], [constant], []))
    if where == "a sparse initializer":
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(indices=tensor))
    if where == "training":
        model.training_info.append(onnx.TrainingInfoProto(algorithm=inner))
    return model.SerializeToString()


@pytest.mark.parametrize(
    "where",
    ["a constant's value", "a branch", "a branch of a branch", "a sparse tensor", "a list of tensors", "a function",
     "a sparse initializer", "training"],
)  # fmt: skip
def test_wherever_a_graph_hides_a_file_it_is_found(tmp_path, where):
    (tmp_path / "g.onnx").write_bytes(hidden_in(where, "../secret"))
    assert inspect(tmp_path / "g.onnx").external == {"../secret"}


def test_of_two_places_for_one_tensor_both_count(tmp_path):
    import onnx

    model = onnx.load_model_from_string(hidden_in("a constant's value", "listed.bin"))
    model.graph.node[0].attribute[0].t.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    assert inspect(tmp_path / "g.onnx").external == {"listed.bin", "/etc/passwd"}


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\xff\xff\xff\xff\x7f",
        b"\x3a\x05ab",
        b"{}",
        b"\x00" * 64,
        b"\x80" * 64,
        struct.pack("<Q", 7) * 9,
        b"<net/>",
    ],
)
def test_what_is_no_graph_is_refused(tmp_path, content):
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx: not an ONNX graph .*: copy the bundle again, or export again"):
        inspect(tmp_path / "g.onnx")


def test_the_exporters_graphs_say_what_the_manifest_says(made):
    for name, component in made.components.items():
        graph = inspect(BUNDLE / f"{name}.onnx")
        assert (graph.inputs, graph.outputs, graph.external) == (component.inputs, component.outputs, set())
    assert inspect(BUNDLE / "text_encoder.onnx").embedded == {"input_ids": 1502}


def test_an_int8_network_needs_its_weights_listed(linked, made):
    shutil.copyfile(BUNDLE / "tokenizer.json", linked / "unet.xml")
    signed(linked, part("unet", files={"unet.xml": sha256(linked / "unet.xml")})(replace(made, precision="int8")))
    with pytest.raises(EngineError, match=r"unet\.xml: the manifest does not list unet\.bin"):
        open_bundle(linked, "openvino")
