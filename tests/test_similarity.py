"""Similarities that can be derived, and a descriptor made for the test."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines import EngineError
from scanner.evidence.similarity import IMAGENET_MEAN, IMAGENET_STD, Descriptor, correlation, ssim

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 24, 20)).astype(np.float32)


def test_correlation_ignores_colour_and_contrast_and_sees_the_negative():
    a, b = NOISE
    found = correlation(np.stack([a, a * 0.5 + 0.2, -a]), np.stack([a, b]))
    np.testing.assert_allclose(found[:, 0], [1, 1, -1], atol=1e-6)
    assert abs(found[0, 1]) < 0.1
    assert np.isnan(correlation(np.ones_like(NOISE), NOISE)).all()


def test_ssim_of_flat_images_is_their_luminance_term():
    low, high = np.full((1, 3, 16, 16), -0.2, np.float32), np.full((1, 3, 16, 16), 0.6, np.float32)
    c1 = (0.01 * 2) ** 2
    assert ssim(low, high).item() == pytest.approx((2 * -0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1), abs=1e-6)


def test_ssim_of_an_image_with_itself_and_with_its_negative():
    assert ssim(NOISE[:1], NOISE[:1]).item() == pytest.approx(1)
    stripes = np.tile(np.where(np.arange(24) % 2, 0.5, -0.5).astype(np.float32), (1, 3, 24, 1))
    # windows hold as much of either stripe (but for the window's tails): mean 0, variance .25, covariance -.25
    c2 = (0.03 * 2) ** 2
    assert ssim(stripes, -stripes).item() == pytest.approx((-0.5 + c2) / (0.5 + c2), abs=1e-3)


def test_ssim_weighs_the_window_as_a_gaussian():
    """One position only: the formula with explicit weights."""
    a, b = NOISE[:, :, :11, :11].astype(np.float64)
    line = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weight = np.outer(line, line) / line.sum() ** 2
    ma, mb = (a * weight).sum((1, 2)), (b * weight).sum((1, 2))
    va, vb = ((x - m[:, None, None]) ** 2 * weight for x, m in ((a, ma), (b, mb)))
    cov = ((a - ma[:, None, None]) * (b - mb[:, None, None]) * weight).sum((1, 2))
    c1, c2 = 0.0004, 0.0036
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va.sum((1, 2)) + vb.sum((1, 2)) + c2))
    assert ssim(a[None], b[None]).item() == pytest.approx(expected.mean())


def descriptor(path, size=(8, 8), kind=TensorProto.FLOAT, channels=3):
    """A network that gives an image's mean colour."""
    image = helper.make_tensor_value_info("image", kind, ["n", channels, *size])
    embedding = helper.make_tensor_value_info("embedding", kind, ["n", channels])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["embedding"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph([node], "colour", [image], [embedding], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_descriptors_cosine_is_of_imagenet_normalised_resized_images(tmp_path):
    found = Descriptor(descriptor(tmp_path / "colour.onnx"))
    colours = np.array([[1, -1, -1], [0.2, 0.2, 0.2]], np.float32)
    images = np.broadcast_to(colours[:, :, None, None], (2, 3, 20, 30))
    pixels = (((images[:, :, 0, 0] + 1) * 127.5).round() / 255 - IMAGENET_MEAN) / IMAGENET_STD
    a, b = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    np.testing.assert_allclose(found.similarity(images, images), [[1, a @ b], [a @ b, 1]], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": ("h", "w")}, "no fixed size"),
        ({"channels": 1}, "needed one image"),
        ({"kind": TensorProto.DOUBLE}, "needed float32"),
    ],
)
def test_a_network_that_is_no_descriptor_is_refused(tmp_path, change, said):
    with pytest.raises(EngineError, match=said):
        Descriptor(descriptor(tmp_path / "other.onnx", **change))


def test_a_file_that_is_no_network_is_refused(tmp_path):
    with pytest.raises(EngineError, match="no such file"):
        Descriptor(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(EngineError, match="cannot load it"):
        Descriptor(tmp_path / "bad.onnx")
