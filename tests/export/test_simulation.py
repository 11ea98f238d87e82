"""Which layers int8 hurts, found in torch for every format."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pairs import CONFIG, PHOTOS, SIZE, draw_weights  # noqa: E402

from deeplab.export.network import ExportNetwork  # noqa: E402
from deeplab.export.plan import Plan  # noqa: E402
from deeplab.export.program import find_layers, layer_names  # noqa: E402
from deeplab.export.simulation import SimulatedNetwork  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.runtimes.network_card import NetworkCard  # noqa: E402

LABELS = LabelSet(("ground", "water", "wood", "road", "roof"))


def make_network(*, outlier: float = 1.0) -> ExportNetwork:
    """Return a network; one channel of the low-level features in the decoder is larger."""
    state = draw_weights(CONFIG)
    for name in ("norm.weight", "norm.bias"):
        state[f"decoder.0.low_level.{name}"][0] *= outlier
    state["decoder.0.convs.0.depthwise.conv.weight"][CONFIG.head_channels] /= outlier
    return ExportNetwork(CONFIG, state, size=SIZE)


def photos_of() -> list[torch.Tensor]:
    return [torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]


def test_all_in_float_is_the_network_itself() -> None:
    network, photos = make_network(), photos_of()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = SimulatedNetwork(network, photos)
    with torch.inference_mode():
        expected = network(photos[0])[0].permute(1, 2, 0).numpy()
    assert (small(photos[0], keep_float=small.layers) == expected).all()
    assert not (small(photos[0], keep_float=()) == expected).all()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_it_knows_the_layers_in_their_order() -> None:
    small = SimulatedNetwork(make_network(), photos_of())
    assert small.layers[0] == "backbone.stem"
    assert "decoder.0.convs.0.pointwise" in small.layers
    assert "classifier" not in small.layers  # float in every file


def test_a_layer_with_an_outlier_is_found() -> None:
    card = NetworkCard(
        spec=InputSpec(height=SIZE[0], width=SIZE[1]),
        labels=LABELS,
        output="logits",
        align_corners=True,
    )
    network = make_network(outlier=300)
    plan = Plan(
        network=network, card=card, precision="int8", calibration=PHOTOS * 2, keep_float="auto"
    )
    found = find_layers(plan)
    assert "decoder.0.convs.0.depthwise" in found
    assert {*found} <= {*layer_names(plan)}  # what --keep-float takes
