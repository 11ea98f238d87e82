"""Weights with something wrong in their structure: refused by name, never taken for something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pytest
import torch
from safetensors.torch import save_file
from test_tensorflow import SMALL, make_variables

from deeplab.errors import ConfigError, WeightsError
from deeplab.models import DeepLabConfig
from deeplab.weights import from_state_dict, huggingface, load_with_report
from deeplab.weights.tensorflow import read_tensorflow

State = dict[str, torch.Tensor]
INDEX = "model.safetensors.index.json"
LAYER = "segmentation_head.conv_aspp.convolution.weight"


@pytest.fixture(scope="module")
def drawn() -> State:
    config = DeepLabConfig(depth_multiplier=0.25, head_channels=8, num_classes=3)
    return peers.draw(peers.shapes_of(config, huggingface._layers()))


@pytest.fixture
def state(drawn: State) -> State:
    return dict(drawn)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(8, 80, 1, 1, dtype=torch.int8), "holds int8, expected floats"),
        (torch.ones(8, 80, 1, 1, dtype=torch.complex64), "holds complex64, expected floats"),
        (torch.full((8, 80, 1, 1), torch.nan), "no finite numbers"),
        (torch.full((8, 80, 1, 1), 1e300, dtype=torch.float64), "no finite numbers"),
    ],
    ids=["int8", "complex", "nan", "too large"],
)
def test_values_that_are_no_weights_are_refused(value: torch.Tensor, words: str, state: State):
    assert state[LAYER].shape == value.shape
    with pytest.raises(WeightsError, match=f"'{LAYER}' .*{words}"):
        from_state_dict({**state, LAYER: value})


def test_two_bytes_are_as_good_as_four(state: State):
    _, exact, _ = from_state_dict(state)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        _, found, _ = from_state_dict({name: value.to(dtype) for name, value in state.items()})
        assert all(value.dtype == torch.float32 for value in found.values())
        key = "head.branches.0.conv.weight"
        torch.testing.assert_close(found[key], exact[key].to(dtype).float(), rtol=0, atol=0)


def test_an_optimiser_beside_the_names_is_of_the_training(state: State):
    _, found, report = from_state_dict({**state, "optimizer.state.0.exp_avg": torch.ones(3)})
    assert report.beside == ("optimizer.state.0.exp_avg",)
    assert len(report.kept) == len(found)


def test_a_weight_without_its_axes_is_words(state: State):
    state["segmentation_head.conv_projection.convolution.weight"] = torch.tensor(1.0)
    with pytest.raises(WeightsError, match=r"cannot be recognised.*axes"):
        from_state_dict(state)


def write_parts(state: State, folder: Path) -> dict[str, str]:
    """Write two parts and their index, as transformers does."""
    table = {name: f"part-{at % 2}.safetensors" for at, name in enumerate(state)}
    for file in set(table.values()):
        save_file({n: v for n, v in state.items() if table[n] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))
    return table


def test_parts_of_two_versions_are_refused(state: State, tmp_path: Path):
    table = write_parts(state, tmp_path)
    _, found, _ = load_with_report(tmp_path)
    assert torch.equal(found["head.branches.0.conv.weight"], state[LAYER])
    owner = table[LAYER]
    other = next(file for file in table.values() if file != owner)
    parts = {file: {n: v for n, v in state.items() if table[n] == file} for file in (owner, other)}
    without = {n: v for n, v in parts[owner].items() if n != LAYER}
    for file, part in (
        (other, {**parts[other], LAYER: state[LAYER] + 1}),
        (owner, without),
        (owner, {**parts[owner], "new": torch.ones(1)}),
    ):
        save_file(part, tmp_path / file)
        with pytest.raises(WeightsError, match=rf"{file}: .*{INDEX} says.*two versions"):
            load_with_report(tmp_path)
        save_file(parts[file], tmp_path / file)


@pytest.mark.parametrize("table", [None, [], {}, {"a": {}}, {"a": ["x"]}, {"a": 3}])
def test_an_index_that_names_no_files_is_words(table: Any, tmp_path: Path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(WeightsError, match=rf"{INDEX}: .*names no files"):
        load_with_report(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "mobilevit"}, r"'mobilevit', but these weights are of a mobilenet_v2"),
        ({"output_stride": True}, r"config\.json: output_stride is True, expected 4, 8"),
        ({"output_stride": "16"}, r"config\.json: output_stride is '16'"),
        ({"model_type": "mobilenet_v2", "layer_norm_eps": -1}, r"model\.safetensors: backbone_bn"),
    ],
)
def test_settings_of_something_else_are_refused(
    settings: dict[str, Any], words: str, state: State, tmp_path: Path
):
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises((WeightsError, ConfigError), match=words):
        load_with_report(tmp_path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(8 * 256, np.float32), "other shape"),
        (np.zeros((1, 1, 160, 256), np.int32), "holds int32, expected floats"),
        (np.full((1, 1, 160, 256), np.nan, np.float32), "no finite numbers"),
    ],
)
def test_a_variable_that_is_no_weight_is_refused_in_a_line(value: np.ndarray, words: str):
    variables = make_variables(SMALL)
    assert variables["aspp0/weights"].shape == (1, 1, 160, 256)
    if value.ndim == 1:
        value = variables["aspp0/weights"].reshape(-1)
    with pytest.raises(WeightsError, match=f"{words}.*|aspp0/weights.*{words}") as caught:
        read_tensorflow({**variables, "aspp0/weights": value}, SMALL)
    assert "\n" not in str(caught.value)
