"""A network that says "object" or not becomes one that tells background and object apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import parity
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models import build
from deeplab.weights import from_state_dict, import_file, open_release

pytestmark = pytest.mark.reference

LAST = {
    "smp_deeplabv3plus_mobilenet_v2_128x160": ["segmentation_head.0"],
    "vainf_deeplabv3plus_mobilenet_os16_129": ["classifier.classifier.3"],
    "tv_deeplabv3_mobilenet_v3_large_129x161": ["classifier.4"],
    "hf_mobilenet_v2_seg_os16_129": ["segmentation_head.classifier.convolution"],
}


def one_class(name: str) -> dict[str, torch.Tensor]:
    """Return a fixture's weights of which only the last class is left."""
    variables = parity.load_fixture(name).variables()
    state = {key: torch.from_numpy(value) for key, value in variables.items()}
    for layer in LAST[name]:
        for part in ("weight", "bias"):
            state[f"{layer}.{part}"] = state[f"{layer}.{part}"][-1:]
    return state


@pytest.mark.parametrize("name", LAST)
def test_the_object_is_where_its_logit_is_above_zero(name: str):
    variables = parity.load_fixture(name).variables()
    whole = {key: torch.from_numpy(value) for key, value in variables.items()}
    config, state, report = from_state_dict(one_class(name))
    assert config.num_classes == 2
    assert report.one_class
    assert "one class, read as two: background, and the object from a confidence of 0.5" in str(
        report
    )
    image = torch.randint(0, 256, (1, 3, 97, 97), dtype=torch.uint8)
    full_config, full, _ = from_state_dict(whole)
    with torch.inference_mode():
        logits = build(config, state).eval()(image)
        theirs = build(full_config, full).eval()(image)[:, -1]
    assert not logits[:, 0].any()
    torch.testing.assert_close(logits[:, 1], theirs)
    torch.testing.assert_close(logits.softmax(1)[:, 1], theirs.sigmoid())
    torch.testing.assert_close(logits.argmax(1), (theirs > 0).long())


def test_its_labels_are_background_and_the_object(tmp_path: Path):
    torch.save(one_class("hf_mobilenet_v2_seg_os16_129"), tmp_path / "cat.pth")
    report = import_file(tmp_path / "cat.pth", tmp_path / "cat")
    assert open_release(tmp_path / "cat").labels.names == ("background", "object")
    assert "background and object" in report.assumed["labels"]
    import_file(tmp_path / "cat.pth", tmp_path / "cat", labels=LabelSet(("cat",)))
    assert open_release(tmp_path / "cat").labels.names == ("background", "cat")
    with pytest.raises(InputError, match="one channel"):
        import_file(tmp_path / "cat.pth", tmp_path / "cat", labels=LabelSet(("a", "b", "c")))
