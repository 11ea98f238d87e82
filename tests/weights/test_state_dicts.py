"""Beyond the parity fixtures, which prove the values: what is recognised, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import parity
from deeplab.errors import ModelNotFoundError, WeightsError
from deeplab.models import DeepLabConfig, build
from deeplab.weights import from_state_dict, load, load_with_report

HUGGING_FACE = "hf_mobilenet_v2_seg_os16_129"
SMP = "smp_deeplabv3plus_mobilenet_v2_128x160"
VAINF = "vainf_deeplabv3plus_mobilenet_os16_129"


@functools.lru_cache(maxsize=3)
def drawn(name: str) -> dict[str, torch.Tensor]:
    variables = parity.load_fixture(name).variables()
    return {key: torch.from_numpy(value) for key, value in variables.items()}


def state_of(name: str) -> dict[str, torch.Tensor]:
    """Return a fixture's weights; the dictionary may be changed, the tensors may not."""
    return dict(drawn(name))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.reference
@pytest.mark.parametrize("name", parity.fixture_names("pytorch"))
def test_every_weight_of_a_fixture_is_kept_or_said_to_be_ignored(name: str):
    shapes = parity.load_fixture(name).spec["variables"]
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    config, ours, report = from_state_dict(state)
    assert sorted((*report.kept, *report.ignored)) == sorted(state)
    assert not report.missing
    assert not report.backbone_only
    auxiliary = r"num_batches_tracked$|^aux_classifier\.|^mobilenet_v2\.conv_1x1\."
    assert all(re.search(auxiliary, key) for key in report.ignored)
    build(config, ours)
    kept = sum(state[key].numel() for key in report.kept)
    assert kept == sum(value.numel() for value in ours.values())


@pytest.mark.reference
@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module.module.", "model."])
def test_wrappers_before_the_names_do_not_matter(wrapper: str):
    state = state_of(VAINF)
    config, plain, _ = from_state_dict(state)
    again, wrapped, _ = from_state_dict({wrapper + key: value for key, value in state.items()})
    assert again == config
    assert equal(plain, wrapped)


@pytest.mark.reference
def test_one_weight_missing_left_over_or_of_another_shape_is_named():
    state = state_of(SMP)
    for change, words in (
        (
            {"encoder.features.3.conv.1.0.weight": None},
            r"missing \(1\): encoder.features.3.conv.1.0",
        ),
        ({"decoder.extra.weight": torch.ones(3)}, r"left over \(1\): decoder.extra.weight"),
        ({"decoder.aspp.2.bias": torch.ones(3)}, r"other shape \(1\): decoder.aspp.2.bias \(3,\)"),
    ):
        changed = {**state, **change}
        with pytest.raises(WeightsError, match=words):
            from_state_dict({key: value for key, value in changed.items() if value is not None})


def test_unknown_names_are_refused_with_the_libraries_that_are_known():
    with pytest.raises(WeightsError, match=r"up1\.weight.*segmentation-models-pytorch"):
        from_state_dict({"up1.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="no known library: nothing"):
        from_state_dict({})
    with pytest.raises(WeightsError, match="LRASPP"):
        from_state_dict({"classifier.low_classifier.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="HRNet and Xception"):
        from_state_dict({"classifier.aspp.convs.0.0.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="no segmentation head"):
        from_state_dict({"mobilenet_v2.conv_stem.first_conv.convolution.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="DeepLab v2 is known"):
        from_state_dict({"base.layer1.conv1.conv.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="without their configuration"):
        from_state_dict({"backbone.stem.conv.weight": torch.ones(1)})


def test_another_resnet_is_refused_by_its_units():
    shapes = {"classifier.0.convs.0.0.weight": (1,)}
    for layer, units in enumerate((3, 4, 7, 3), start=1):
        for unit in range(units):
            shapes[f"backbone.layer{layer}.{unit}.conv3.weight"] = (1,)
    shapes["backbone.layer1.0.conv2.weight"] = (64, 64, 3, 3)
    with pytest.raises(WeightsError, match=r"\(3, 4, 7, 3\) units"):
        from_state_dict({name: torch.empty(shape) for name, shape in shapes.items()})


@pytest.mark.reference
def test_files_of_every_kind_give_the_same(tmp_path: Path):
    state = state_of(HUGGING_FACE)
    config, expected, _ = from_state_dict(state)
    torch.save(state, tmp_path / "plain.pth")
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state, "best": 0.7}, tmp_path / "nested.bin")
    torch.save({"model": {"model_state": state}, "cur_itrs": 5}, tmp_path / "twice")
    save_file(state, tmp_path / "weights.safetensors")
    save_file(state, tmp_path / "no_suffix_at_all")
    for file in sorted(tmp_path.iterdir()):
        got_config, got = load(file)
        assert got_config == config, file
        assert equal(got, expected), file


@pytest.mark.reference
def test_the_output_stride_is_asked_then_read_then_assumed(tmp_path: Path):
    state = state_of(VAINF)
    torch.save(state, tmp_path / "best_deeplabv3plus_mobilenet_voc_os8.pth")
    torch.save(state, tmp_path / "latest.pth")
    assert load(tmp_path / "latest.pth")[0].output_stride == 16
    assert load(tmp_path / "latest.pth", output_stride=32)[0].output_stride == 32
    assert load(tmp_path / "best_deeplabv3plus_mobilenet_voc_os8.pth")[0].output_stride == 8
    folder = tmp_path / "deeplabv3_mobilenet_v2_1.0_513"
    folder.mkdir()
    save_file(state_of(HUGGING_FACE), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"output_stride": 8, "model_type": "x"}))
    assert load(folder)[0].output_stride == 8
    assert load(folder / "model.safetensors")[0].output_stride == 8


@pytest.mark.reference
def test_the_library_s_own_settings_decide_the_network(tmp_path: Path):
    save_file(state_of(HUGGING_FACE), tmp_path / "model.safetensors")
    plain = load(tmp_path)[0]

    def imported(**settings: object) -> DeepLabConfig:
        (tmp_path / "config.json").write_text(json.dumps(settings))
        return load(tmp_path, output_stride=16)[0]

    mine = {"model_type": "mobilenet_v2", "tf_padding": False, "layer_norm_eps": 0.002}
    changed = imported(**mine)
    assert changed == dataclasses.replace(plain, padding="symmetric", backbone_bn_eps=0.002)
    assert plain.padding == imported(model_type="mobilenet_v2", tf_padding=True).padding == "same"
    assert imported(tf_padding=False, model_type="of another library") == plain
    with pytest.raises(WeightsError, match=r"hidden_act is 'swish', expected 'relu6'"):
        imported(model_type="mobilenet_v2", hidden_act="swish")


@pytest.mark.reference
def test_cut_files_are_errors_in_words(tmp_path: Path):
    state = state_of(HUGGING_FACE)
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    for file in sorted(tmp_path.iterdir()):
        content = file.read_bytes()
        for length in (0, 3, 9, 40, 1000, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            with pytest.raises(WeightsError, match=re.escape(str(file))):
                load(file)
    with pytest.raises(ModelNotFoundError, match="nothing"):
        load(tmp_path / "nothing.pth")


@pytest.mark.reference
def test_a_classifier_gives_the_backbone_and_says_so(tmp_path: Path):
    """torchvision's own naming of MobileNetV2, taken from smp's, which copied it."""
    state = {
        key.removeprefix("encoder."): value
        for key, value in state_of(SMP).items()
        if key.startswith("encoder.")
    }
    state |= {"classifier.1.weight": torch.ones(1000, 1280), "classifier.1.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "mobilenet_v2-b0353104.pth")
    config, ours, report = load_with_report(tmp_path / "mobilenet_v2-b0353104.pth")
    assert report.backbone_only
    assert all(key.startswith("backbone.") for key in ours)
    assert "backbone only" in str(report)
    assert {"classifier.1.weight", "features.18.0.weight"} <= set(report.ignored)
    with torch.device("meta"):
        network = build(config)
    assert not network.load_state_dict(ours, strict=False, assign=True).unexpected_keys
    assert torch.equal(ours["backbone.stem.conv.weight"], state["features.0.0.weight"])
