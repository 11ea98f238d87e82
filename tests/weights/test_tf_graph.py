from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import field, shape_message

from deeplab.errors import ModelNotFoundError, WeightsError
from deeplab.weights.tf_graph import parse_graph, read_graph, read_settings

GRAPH = "parity/tf_checkpoint_mnv2_dm05/frozen_inference_graph.pb"


def _attribute(name: str, value: bytes) -> bytes:
    return field(5, field(1, name.encode()) + field(2, value))


def _node(name: str, op: str, inputs: tuple[str, ...] = (), attributes: bytes = b"") -> bytes:
    message = field(1, name.encode()) + field(2, op.encode())
    message += b"".join(field(3, text.encode()) for text in inputs)
    return field(1, message + attributes)


def _ints(*values: int) -> bytes:
    return field(1, field(3, b"".join(bytes([value]) for value in values)))


def _const(name: str, tensor: bytes) -> bytes:
    return _node(name, "Const", (), _attribute("value", field(8, tensor)))


def _conv(name: str, source: str, stride: int, rate: int = 1) -> bytes:
    return _node(
        name,
        "Conv2D",
        (source, f"{name}/weights"),
        _attribute("strides", _ints(1, stride, stride, 1))
        + _attribute("dilations", _ints(1, rate, rate, 1)),
    )


@pytest.mark.parametrize(
    ("dtype", "tensor", "expected"),
    [
        (1, field(4, np.float32([1, 2, 3]).tobytes()), np.float32([1, 2, 3])),
        (1, field(5, np.float32([1, 2, 3]).tobytes()), np.float32([1, 2, 3])),
        (1, field(5, 1.0) + field(5, 2.0) + field(5, 3.0), np.float32([1, 2, 3])),
        (1, field(5, 7.0), np.float32([7, 7, 7])),  # one value stands for all
        (1, b"", np.float32([0, 0, 0])),
        (3, field(7, b"\x01\x02\x03"), np.int32([1, 2, 3])),
        (3, field(7, -1), np.int32([-1, -1, -1])),
        (9, field(10, -5), np.int64([-5, -5, -5])),
        (14, field(13, 0x3FC0), np.float32([1.5, 1.5, 1.5])),
        (19, field(13, 0x3E00), np.float16([1.5, 1.5, 1.5])),
    ],
)
def test_constants_come_back_however_they_are_stored(dtype: int, tensor: bytes, expected):
    message = field(1, dtype) + field(2, shape_message((3,))) + tensor
    got = parse_graph(memoryview(_const("a/gamma", message))).variables()["a/gamma"]
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype


def test_strides_rates_and_pooling_are_read_off_the_operators():
    """Also from dilations, where newer versions write no SpaceToBatch, and from any order."""
    root = "xception_65/exit_flow/block2/unit_1/xception_module/separable_conv"
    nodes = [
        _conv("xception_65/entry_flow/conv1_1", "image", 2),
        _conv("xception_65/entry_flow/conv1_2", "xception_65/entry_flow/conv1_1", 2),
        _node("pool", "MaxPool", ("xception_65/entry_flow/conv1_2",),
              _attribute("strides", _ints(1, 2, 2, 1))),
        _conv(f"{root}1_depthwise/depthwise", "pool", 1, 4),
        _conv(f"{root}2_depthwise/depthwise", f"{root}1_depthwise/depthwise", 1, 8),
        _conv(f"{root}3_depthwise/depthwise", f"{root}2_depthwise/depthwise:0", 1, 16),
        _node("AvgPool", "AvgPool", (f"{root}3_depthwise/depthwise",),
              _attribute("ksize", _ints(1, 65, 97, 1)) + _attribute("strides", _ints(1, 4, 5, 1))),
        _conv("image_pooling/Conv2D", "AvgPool", 1),
        _conv("aspp1_depthwise/depthwise", f"{root}3_depthwise/depthwise", 1, 12),
        _conv("aspp2_depthwise/depthwise", f"{root}3_depthwise/depthwise", 1, 24),
    ]  # fmt: skip
    for order in (nodes, nodes[::-1]):
        settings = read_settings(parse_graph(memoryview(b"".join(order))))
        assert settings == {
            "output_stride": 8,
            "multi_grid": (1, 2, 4),
            "atrous_rates": (12, 24),
            "rates_stated_at": 8,
            "image_pooling_crop_size": (513, 769),
            "image_pooling_stride": (4, 5),
        }


@pytest.mark.reference
def test_the_original_graph(reference: Path):
    sys.path.insert(0, str(reference / "parity"))
    from seeded_weights import seeded_weight

    graph = read_graph(reference / GRAPH)
    variables = graph.variables()
    assert len(variables) == 272
    for name, value in variables.items():
        np.testing.assert_array_equal(value, seeded_weight(name, value.shape))
    assert read_settings(graph) == {
        "align_corners": True,
        "output_stride": 8,
        "backbone_bn_eps": 1e-3,
        "head_bn_eps": 1e-5,
        "image_pooling_crop_size": (129, 129),
        "image_pooling_stride": (1, 1),
    }


def test_other_files_are_refused_in_words(tmp_path: Path):
    with pytest.raises(ModelNotFoundError):
        read_graph(tmp_path / "nothing.pb")
    file = tmp_path / "graph.pb"
    for content, words in (
        (b"", "no operators"),
        (b"\x08\x01\x12\x00", "SavedModel"),
        (b"\x89PNG\r\n\x1a\n", "damaged|cut off"),
        (field(1, field(2, b"Const")), "no name"),
    ):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            read_graph(file)


@pytest.mark.reference
def test_every_cut_of_the_graph_is_an_error_in_words(reference: Path, tmp_path: Path):
    content = (reference / GRAPH).read_bytes()
    whole = parse_graph(memoryview(content)).nodes
    for length in np.random.default_rng(0).integers(1, len(content), 20):
        try:
            nodes = parse_graph(memoryview(content)[:length]).nodes
        except WeightsError:
            continue
        # Cut between two operators: what is there is right.
        assert nodes.items() <= whole.items()
