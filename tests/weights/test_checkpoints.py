"""What a training leaves behind: the network in it is found, and the rest is said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import parity
from deeplab.errors import WeightsError
from deeplab.weights import from_state_dict, import_file, load_with_report, open_release

pytestmark = pytest.mark.reference
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    variables = parity.load_fixture("smp_deeplabv3plus_mobilenet_v2_128x160").variables()
    return {name: torch.from_numpy(value) for name, value in variables.items()}


@pytest.fixture(scope="module")
def expected(state: State) -> State:
    return from_state_dict(state)[1]


def put_before(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def halved(state: State) -> State:
    return {k: v / 2 if v.is_floating_point() else v for k, v in state.items()}


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def imported(content: Any, folder: Path, **options: Any) -> tuple[State, Any]:
    torch.save(content, folder / "checkpoint.ckpt")
    _, got, report = load_with_report(folder / "checkpoint.ckpt", **options)
    return got, report


def test_wrappers_of_every_kind_and_order_are_taken_off(state: State, expected: State):
    chance = random.Random(1)
    prefixes = [
        "module.", "_orig_mod.", "model.", "net.", "segmenter.", "network.model.",
        "student_model.", "_forward_module.", "my_trainer.arch.",
    ]  # fmt: skip
    keys = ["state_dict", "model", "model_state_dict", "net", "module", "generator", "a.last"]
    optimizer = {"state": {0: torch.ones(3, 3)}}
    for _ in range(12):
        content: Any = put_before("".join(chance.choices(prefixes, k=chance.randrange(4))), state)
        for key in chance.choices(keys, k=chance.randrange(3)):
            content = {"epoch": torch.tensor(3), key: content, "optimizer": optimizer}
        flat = flatten_names(content)
        _, got, report = from_state_dict(flat)
        assert equal(got, expected)
        assert not report.others


def flatten_names(content: Any, prefix: str = "") -> State:
    flat: State = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten_names(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def test_what_lay_beside_the_network_is_listed(state: State, expected: State, tmp_path: Path):
    head = {f"{index}.weight": torch.ones(2, 2, 1, 1) for index in range(5)}
    content = {
        "state_dict": {
            "std": torch.ones(3),
            "loss_fn.weight": torch.ones(3),
            **put_before("model.", state),
            **put_before("head2.", head),
        },
        "optimizer_states": [{"state": {at: {"exp_avg": torch.ones(3)} for at in range(2)}}],
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    }
    got, report = imported(content, tmp_path)
    assert equal(got, expected)
    assert report.beside == (
        "std", "loss_fn.weight", "head2.* (5)", "optimizer_states.* (2)", "epoch",
        "hyper_parameters",
    )  # fmt: skip
    assert "beside the network: std, loss_fn.weight, head2.* (5)" in str(report)


def test_a_part_of_the_network_that_is_not_ours_is_no_bystander(state: State, tmp_path: Path):
    """A loss's weight changes no mask; an attention before the classes does."""
    _, _, report = from_state_dict({**state, "criterion.pos_weight": torch.ones(3)})
    assert report.beside == ("criterion.pos_weight",)
    for name in ("attention.conv.weight", "scale", "segmentation_head.1.weight"):
        with pytest.raises(WeightsError, match=rf"left over \(1\): {name}"):
            from_state_dict({**state, name: torch.ones(3)})


def test_of_an_average_and_the_plain_weights_it_says_which_it_took(
    state: State, expected: State, tmp_path: Path
):
    other = halved(state)
    n = torch.tensor(5)
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"model": other, "model_ema": state}, "model_ema", "model"),
        ({"model": other, "model_ema": {"n_averaged": n, **put_before("module.", state)}},
         "model_ema.module", "model"),
        ({"state_dict": other, "state_dict_ema": state}, "state_dict_ema", "state_dict"),
        ({"state_dict": {**put_before("model.", other), **put_before("ema_model.module.", state)}},
         "state_dict.ema_model.module", "state_dict.model"),
        # The average has not begun.
        ({"model": state, "model_ema": {"n_averaged": n * 0, **put_before("module.", other)}},
         "model", "model_ema.module"),
        # Lightning and mmengine put the average where the plain weights were.
        ({"state_dict": put_before("net.", state), "averaging_state": {"n_averaged": n},
          "current_model_state": put_before("net.", other)},
         "state_dict.net", "current_model_state.net"),
        ({"meta": {"mmengine_version": "0.10"}, "state_dict": state,
          "ema_state_dict": {"steps": n, **put_before("module.", other)}},
         "state_dict", "ema_state_dict.module"),
        # A teacher is a means; what is trained is the student.
        ({"state_dict": {**put_before("teacher.", other), **put_before("student.", state)}},
         "state_dict.student", "state_dict.teacher"),
    ]  # fmt: skip
    for content, taken, left in cases:
        got, report = imported(content, tmp_path)
        assert (report.taken, report.others) == (taken, (left,))
        assert equal(got, expected)
        assert f"took {taken}; there is also {left}: take it with --part {left}" in str(report)
        got, report = imported(content, tmp_path, part=left)
        assert report.taken == left
        assert not equal(got, expected)
    with pytest.raises(
        WeightsError, match=r"part: got 'best'.*state_dict\.student, state_dict\.teacher"
    ):
        imported(content, tmp_path, part="best")


def test_a_whole_pickled_network_is_read(state: State, expected: State, tmp_path: Path):
    class Part(torch.nn.Module):
        pass

    root = Part()
    for name, value in state.items():
        *path, leaf = name.split(".")
        module: torch.nn.Module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(leaf, value)
    root.__class__ = torch.nn.Module
    got, report = imported({"net": root, "epoch": 3}, tmp_path)
    assert equal(got, expected)
    assert report.taken == "net"


def test_a_backbone_alone_is_no_part_of_another_network(state: State):
    """The encoder of a U-Net is not taken for a classifier."""
    encoder = {k: v for k, v in state.items() if k.startswith("encoder.")}
    assert from_state_dict(encoder)[2].backbone_only
    with pytest.raises(WeightsError, match="belong to no known library"):
        from_state_dict({**encoder, "up.0.weight": torch.ones(4, 4, 3, 3)})


def test_folders_of_trainers(state: State, expected: State, tmp_path: Path):
    """Sharded as transformers does it, DeepSpeed's first rank, FSDP's parts."""
    names = list(state)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    for part in range(2):
        save_file(
            {n: state[n].contiguous() for n in names[part::2]},
            sharded / f"model-{part}.safetensors",
        )
    table = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert equal(load_with_report(sharded)[1], expected)
    table[names[0]] = "../model-0.safetensors"
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(WeightsError, match="not beside it"):
        load_with_report(sharded)

    deep = tmp_path / "deep"
    (deep / "checkpoint").mkdir(parents=True)
    content = {
        "module": put_before("module.model.", state),
        "ds_version": "0.14",
        "dp_world_size": 1,
    }
    torch.save(content, deep / "checkpoint" / "mp_rank_00_model_states.pt")
    assert equal(load_with_report(deep)[1], expected)

    for files, words in (
        ((".metadata", "__0_0.distcp"), "dcp_to_torch"),
        (("zero_to_fp32.py", "latest"), "zero_to_fp32.py"),
        (("trainer_state.json",), "without model.safetensors"),
    ):
        folder = tmp_path / files[-1]
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        with pytest.raises(WeightsError, match=words):
            load_with_report(folder)


def test_the_rates_that_smp_saved_are_the_network_s(state: State, tmp_path: Path):
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    settings = {"encoder_name": "mobilenet_v2", "encoder_output_stride": 8,
                "decoder_atrous_rates": [3, 6, 9]}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config, _, _ = load_with_report(tmp_path)
    assert (config.atrous_rates, config.rates_stated_at, config.output_stride) == ((3, 6, 9), 8, 8)
    settings["decoder_atrous_rates"] = "x"  # type: ignore[assignment]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="decoder_atrous_rates is 'x'"):
        load_with_report(tmp_path)


def test_files_of_other_kinds_are_named(tmp_path: Path):
    for name, content, words in (
        ("net.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        ("net.onnx", b"\x08\x07\x12\x04test", "deployed network"),
        ("net.pth", b"<!DOCTYPE html><html>", "web page"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("empty.pth", b"", "empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            load_with_report(tmp_path / name)


def test_what_is_assumed_of_pixels_is_said_and_may_be_set(state: State, tmp_path: Path):
    content = {"state_dict": {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1),
                              **put_before("model.", state)}}  # fmt: skip
    torch.save(content, tmp_path / "last.ckpt")
    report = import_file(tmp_path / "last.ckpt", tmp_path / "pair")
    assert "mean [0.0, 0.0, 0.0], std [1.0, 1.0, 1.0]" in report.assumed["normalisation"]
    assert open_release(tmp_path / "pair").config.pixel_std == pytest.approx(
        (58.395, 57.12, 57.375)
    )
    report = import_file(tmp_path / "last.ckpt", tmp_path / "pair", normalisation="0..255")
    assert "normalisation" not in report.assumed
    config = open_release(tmp_path / "pair").config
    assert (config.pixel_mean, config.pixel_std) == ((0, 0, 0), (1, 1, 1))


def test_a_changed_byte_is_seen_by_its_checksum(state: State, tmp_path: Path):
    path = tmp_path / "weights.pth"
    name = next(key for key, value in state.items() if value.ndim == 4)
    torch.save(state, path)
    whole = path.read_bytes()
    at = whole.index(state[name].numpy().tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(WeightsError, match=r"weights\.pth: .*'.+' cannot be read .*checksum"):
        load_with_report(path)


def test_a_file_without_checksums_is_read(state: State, expected: State, tmp_path: Path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    _, found, _ = load_with_report(tmp_path / "weights.pth")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
