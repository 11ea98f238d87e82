"""What is in an .onnx file, and that it answers as torch does at every size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from builds import build_once  # noqa: E402
from pairs import (  # noqa: E402
    CONFIG,
    PHOTOS,
    SIZE,
    draw_weights,
    write_pair,
)

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import ExportError, InputError, MissingExtraError  # noqa: E402
from deeplab.export import Exported, export  # noqa: E402
from deeplab.export import onnx as module  # noqa: E402
from deeplab.export.network import ExportNetwork  # noqa: E402
from deeplab.export.plan import Plan  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.runtimes.network_card import NetworkCard  # noqa: E402
from deeplab.weights import open_release  # noqa: E402

CALIBRATION = PHOTOS * 2
COMPUTES = {"Conv", "Clip", "Relu", "Add", "ReduceMean", "Resize", "Concat"}
PREPARES = {"Cast", "Sub", "Div", "Transpose", "Shape", "Squeeze", "Reshape"}


@pytest.fixture(autouse=True)
def _build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    build_once(monkeypatch)


def run(pair: Path, folder: Path, **given: object) -> Exported:
    return export(pair, "onnx", file=folder / "net.onnx", photos=PHOTOS, **given)


def photos_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def torch_logits(pair: Path, photos: np.ndarray) -> np.ndarray:
    """Return (N, h, w, K)."""
    release = open_release(pair)
    network = build(release.config, release.state_dict()).eval()
    with torch.inference_mode():
        return network(torch.from_numpy(photos).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def session_of(file: Path | bytes) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def test_float32_answers_as_torch_does(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path)
    assert [one.name for one in found.certificate.rounds] == ["129×97", "65×49"]
    for one in found.certificate.rounds:
        assert one.worst_equal_pixels >= 0.9999
        assert one.max_logit_difference < 1e-4
    assert found.certificate.int8_tensors == 0


@pytest.mark.parametrize("shape", [(1, 129, 97), (3, 65, 81), (2, 100, 62), (1, 33, 140)])
def test_any_batch_and_size(pair: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    session = session_of(run(pair, tmp_path).file)
    photos = photos_of(*shape)
    (logits,) = session.run(["logits"], {"image": photos})
    expected = torch_logits(pair, photos)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_what_is_in_the_file(pair: Path, tmp_path: Path) -> None:
    file = run(pair, tmp_path).file
    content = file.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", module.OPSET)]
    assert {node.op_type for node in model.graph.node} == COMPUTES | PREPARES
    assert b"site-packages" not in content  # nothing of the machine that wrote it
    assert str(Path(__file__).parents[2]).encode() not in content
    sides = [
        [side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert sides == [["batch", "height", "width", 3], ["batch", "rows", "columns", 5]]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions[0].name == "backbone.stem"
    assert convolutions[-1].name == "classifier"
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert model.producer_name == "deeplab"


def test_the_file_says_all_that_the_pair_said(pair: Path, tmp_path: Path) -> None:
    file = run(pair, tmp_path).file
    reference, alone = Segmenter(pair), Segmenter(file)
    assert alone.labels == reference.labels  # colours and background too
    assert alone.spec == reference.spec
    photo = photos_of(200, 150)
    assert (alone(photo).mask == reference(photo).mask).mean() >= 0.9999


def test_a_mask(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path, output="mask")
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    session = session_of(found.file)
    for shape in ((2, 129, 97), (1, 100, 62)):
        photos = photos_of(*shape)
        (mask,) = session.run(["mask"], {"image": photos})
        assert (mask.dtype, mask.shape) == (np.uint8, shape)
        logits = torch.from_numpy(torch_logits(pair, photos)).permute(0, 3, 1, 2)
        full = torch.nn.functional.interpolate(
            logits, shape[1:], mode="bilinear", align_corners=True
        )
        assert (mask == full.argmax(1).numpy()).mean() >= 0.9999


def test_float16(pair: Path, tmp_path: Path) -> None:
    whole = run(pair, tmp_path).file.stat().st_size
    found = run(pair, tmp_path, precision="float16", overwrite=True)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.999
    model = onnx.load(found.file)
    kinds = {True: onnx.TensorProto.FLOAT, False: onnx.TensorProto.FLOAT16}
    weights = [t for t in model.graph.initializer if len(t.dims) == 4]
    assert all(t.data_type == kinds[t.dims[1] == 1] for t in weights)  # True: depthwise
    assert found.file.stat().st_size < 0.7 * whole
    ends = [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)]
    assert ends == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]


def test_int8(pair: Path, tmp_path: Path) -> None:
    found = run(
        pair, tmp_path, precision="int8", calibrate=CALIBRATION, allow=True,
        keep_float=["backbone.stem"],
    )  # fmt: skip
    assert found.certificate.kept_float == ("backbone.stem",)
    model = onnx.load(found.file)
    constants = {t.name: t for t in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    zero_points = [constants[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert {t.data_type for t in zero_points} == {onnx.TensorProto.UINT8}
    in_float = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weight = made.get(node.input[1])
        if weight is None:
            in_float.append(node.name)
            continue
        assert constants[weight.input[0]].data_type == onnx.TensorProto.INT8
        channels = constants[weight.input[0]].dims[0]
        assert list(constants[weight.input[1]].dims) == [channels]  # a scale for each
    assert in_float == ["backbone.stem", "classifier"]
    assert found.certificate.int8_tensors > 50
    logits = torch_logits(pair, photos_of(1, *SIZE))
    (small,) = session_of(found.file).run(None, {"image": photos_of(1, *SIZE)})
    assert np.corrcoef(small.ravel(), logits.ravel())[0, 1] > 0.95


def test_two_scales_share_names_and_weights(two_scales: Path, tmp_path: Path) -> None:
    real = run(two_scales, tmp_path)
    names = [node.name for node in onnx.load(real.file).graph.node if node.op_type == "Conv"]
    once = names[: len(names) // 2]
    assert names == [*once, *(f"{name}:2" for name in once)]
    assert real.certificate.bytes < 1.2 * real.certificate.weights_bytes
    small = run(
        two_scales, tmp_path, precision="int8", calibrate=CALIBRATION, allow=True,
        keep_float=["backbone.stem"], overwrite=True,
    )  # fmt: skip
    graph = onnx.load(small.file).graph
    constants = {tensor.name for tensor in graph.initializer}
    in_float = {n.name for n in graph.node if n.op_type == "Conv" and n.input[1] in constants}
    assert in_float == {"backbone.stem", "classifier", "backbone.stem:2", "classifier:2"}
    assert small.certificate.bytes < 0.5 * real.certificate.bytes


def test_a_layer_that_is_not_there(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no layer 'backbone\.steam'\. Did you mean 'backbone\.ste"
    ):
        run(pair, tmp_path, precision="int8", calibrate=CALIBRATION, keep_float=["backbone.steam"])
    assert not [*tmp_path.iterdir()]


def test_a_window_fixes_the_size(tmp_path: Path) -> None:
    config = DeepLabConfig(
        depth_multiplier=0.5, num_classes=5, head_channels=32, image_pooling_crop_size=(65, 65)
    )
    found = run(write_pair(tmp_path, config), tmp_path)
    assert [one.name for one in found.certificate.rounds] == ["photos", "photos at half size"]
    network = Segmenter(found.file).network
    with pytest.raises(InputError, match=r"net\.onnx takes 129×97 only"):
        network(photos_of(65, 65))


def plan_of(network: ExportNetwork, *, any_size: bool = False) -> Plan:
    names = tuple(f"class {index}" for index in range(network.config.num_classes))
    card = NetworkCard(
        spec=InputSpec(height=65, width=65),
        labels=LabelSet(names),
        output="logits",
        align_corners=True,
        any_size=any_size,
    )
    return Plan(network=network, card=card)


def test_an_operation_that_the_format_lacks(tmp_path: Path) -> None:
    class Strange(ExportNetwork):
        def forward(self, image, output_stride=None):
            return torch.special.bessel_j0(super().forward(image))

    network = Strange(CONFIG, draw_weights(CONFIG))
    with pytest.raises(ExportError, match="onnx: the converter cannot write") as caught:
        module.convert(plan_of(network), tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert "--to tflite" in str(caught.value)


def test_a_network_that_cannot_be_traced(tmp_path: Path) -> None:
    class Strange(ExportNetwork):
        def forward(self, image, output_stride=None):
            return super().forward(image) if image.sum().item() > 0 else image

    network = Strange(CONFIG, draw_weights(CONFIG))
    with pytest.raises(ExportError, match="PyTorch cannot trace this network at 65×65"):
        module.convert(plan_of(network), tmp_path / "net.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_what_is_not_installed(
    package: str, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs '{package}'.*deeplab\[onnx\]"):
        module.count_int8(tmp_path / "net.onnx")


# --- every family of networks -------------------------------------------------------------------

FAMILIES = {
    "v1-msc": DeepLabConfig(
        version="v1", backbone="vgg16", large_fov_channels=32, multi_scale_features=True
    ),
    "v2": DeepLabConfig(version="v2", backbone="resnet_v1_18"),
    "v3-resnet-ceil": DeepLabConfig(
        backbone="resnet_v1_18", pool_ceil_mode=True, padding="symmetric", align_corners=False,
        aspp_separable=False, pooling_first=False, post_aspp="conv", head_channels=32,
    ),
    "v3+-xception": DeepLabConfig(version="v3+", backbone="xception_41", head_channels=32),
    "v3+-mirror": DeepLabConfig(
        version="v3+", backbone="mobilenet_v2", depth_multiplier=0.35, mirror_scale=1.0,
    ),
    "v3+-mobilenet_v3": DeepLabConfig(
        version="v3+", backbone="mobilenet_v3_small_seg", head_channels=32,
        squeeze_excitation=True, hard_gate=True, concat_projection=False,
        decoder_output_stride=(8,), decoder_merge="sum", decoder_channels=21,
        decoder_output_is_logits=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_at_other_sizes_than_it_was_traced_at(name: str) -> None:
    config = FAMILIES[name]
    plan = plan_of(ExportNetwork(config, draw_weights(config)), any_size=True)
    session = session_of(module.build(plan).SerializeToString())
    mean, std = (torch.tensor(v) for v in (plan.card.spec.mean, plan.card.spec.std))
    for height, width in ((65, 65), (97, 75)):
        photos = photos_of(1, height, width)
        x = (torch.from_numpy(photos) - mean) / std
        with torch.inference_mode():
            wanted = plan.network(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        (logits,) = session.run(None, {"image": photos})
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=3e-5 * np.abs(wanted).max())
