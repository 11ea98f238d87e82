from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from pairs import PHOTOS, SIZE  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import ExportError  # noqa: E402
from deeplab.export import export, tflite  # noqa: E402
from deeplab.export.network import ExportNetwork  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402
from deeplab.runtimes import litert  # noqa: E402
from deeplab.tflite import file as tflite_file  # noqa: E402
from deeplab.tflite.metadata import read_metadata  # noqa: E402

pytestmark = pytest.mark.usefixtures("convert_once")

COMPUTES = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "RESIZE_BILINEAR", "CONCATENATION"}


def run(pair: Path, folder: Path, **given: object):
    return export(pair, file=folder / "net.tflite", photos=PHOTOS, **given)


def test_float32_answers_as_torch_does(pair, tmp_path):
    found = run(pair, tmp_path)
    for one in found.certificate.rounds:
        assert one.worst_equal_pixels >= 0.9999
        assert one.max_logit_difference < 1e-4
    assert found.certificate.faults == ()
    file = tflite_file.read(found.file)
    assert {op.name for op in file.operators} == COMPUTES  # so: no transpose, pad, reshape
    assert len(file.operators) == 73  # one per convolution, and residual sums: all else is fused
    picture, logits = file.tensors[file.inputs[0]], file.tensors[file.outputs[0]]
    assert (picture.type, picture.shape) == ("FLOAT32", (1, *SIZE, 3))
    assert (logits.type, logits.shape) == ("FLOAT32", (1, 33, 25, 5))


def test_layers_are_called_as_in_the_network(pair, tmp_path):
    file = tflite_file.read(run(pair, tmp_path).file)
    names = [file.tensors[op.outputs[0]].name for op in file.operators]
    assert len({*names}) == len(names)
    assert names[0] == "backbone.stem"
    assert "backbone.blocks.3.project" in names
    assert "decoder.0.convs.0.pointwise" in names
    assert (file.tensors[file.inputs[0]].name, names[-1]) == ("image", "logits")


def test_the_file_says_all_that_the_pair_said(pair, tmp_path):
    found = run(pair, tmp_path)
    reference, alone = Segmenter(pair), Segmenter(found.file)
    assert alone.labels == reference.labels  # colours and background too
    assert alone.spec == reference.spec
    assert alone.spec.fit == "stretch"
    assert alone.network.align_corners
    metadata = read_metadata(tflite_file.read(found.file))
    assert metadata.licence == "CC0-1.0"
    assert (metadata.mean, metadata.std) == ((127.5,), (127.5,))


def test_the_certificate_lies_beside_the_file(pair, tmp_path):
    found = run(pair, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.tflite", "net.tflite.json"]
    told = json.loads(found.certificate_file.read_text("utf-8"))
    assert told["weights"] == "tiny.safetensors"
    assert told["bytes"] == found.file.stat().st_size
    assert [one["photos"] for one in told["rounds"]] == [len(PHOTOS)] * 2
    assert told["latency_ms"] > 0


def test_float16_halves_the_file(pair, tmp_path):
    whole = run(pair, tmp_path).file.stat().st_size
    found = run(pair, tmp_path, precision="float16", overwrite=True)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.999
    assert found.file.stat().st_size < 0.62 * whole
    file = tflite_file.read(found.file)
    assert file.tensors[file.inputs[0]].type == file.tensors[file.outputs[0]].type == "FLOAT32"


def test_dynamic_needs_no_photos_and_keeps_activations_float(pair, tmp_path):
    whole = run(pair, tmp_path).file.stat().st_size
    found = run(pair, tmp_path, precision="dynamic", overwrite=True, allow=True)
    assert found.file.stat().st_size < 0.5 * whole
    file = tflite_file.read(found.file)
    computed = {tensor.type for tensor in file.tensors if not tensor.is_constant}
    assert computed == {"FLOAT32"}
    convolutions = [op for op in file.operators if op.name == "CONV_2D"]
    weights = {op.inputs[1]: file.tensors[op.inputs[1]] for op in convolutions}
    assert {tensor.type for tensor in weights.values()} == {"INT8"}
    assert all(len(one.quantization.scale) == one.shape[0] for one in weights.values())
    assert found.certificate.int8_tensors == len(weights)
    depthwise = [op for op in file.operators if op.name == "DEPTHWISE_CONV_2D"]
    assert {file.tensors[op.inputs[1]].type for op in depthwise} == {"FLOAT32"}


def test_a_mask_at_another_size_and_stride(pair, tmp_path):
    size = (65, 97)
    found = run(pair, tmp_path, output="mask", size=size, output_stride=8)
    assert (found.certificate.size, found.certificate.output_stride) == (size, 8)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    file = tflite_file.read(found.file)
    assert {op.name for op in file.operators} == COMPUTES | {"ARG_MAX", "CAST"}
    rates = [op.options["dilation_h_factor"] for op in file.operators if "DEPTHWISE" in op.name]
    assert {*rates} == {1, 2, 4}
    mask = file.tensors[file.outputs[0]]
    assert (mask.type, mask.shape) == ("UINT8", (1, *size))
    whole = litert.open(found.file, threads=1, whole=True)
    answer = whole(np.full((*size, 3), 90, np.uint8))
    assert whole.output == "label map"
    assert answer.shape == size
    assert answer.max() < 5


def test_an_operation_that_the_format_lacks():
    class Strange(ExportNetwork):
        def forward(self, image, output_stride=None):
            return torch.special.bessel_j0(super().forward(image))

    config = DeepLabConfig(version="v2", backbone="resnet_v1_18", num_classes=2)
    network = Strange(config, build(config).state_dict())
    with pytest.raises(ExportError, match="bessel") as caught:
        tflite.lower(network, (33, 33))
    assert "\n" not in str(caught.value)
    assert "--to onnx" in str(caught.value)


@pytest.mark.reference
@pytest.mark.integration
def test_a_trained_network(reference, tmp_path):
    """The public network, from its integers to torch and back, on photos it knows to segment."""
    from deeplab.labels import VOC
    from deeplab.weights import import_file

    import_file(
        reference / "models/deeplabv3_mnv2_pascal_quant.tflite", tmp_path / "voc", labels=VOC
    )
    photos = [*PHOTOS, *sorted((reference / "photos").glob("*.jpg"))]
    given = {"size": (257, 257), "photos": photos, "overwrite": True}
    found = export(tmp_path / "voc", **given)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    found = export(tmp_path / "voc", precision="float16", **given)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.999
    found = export(tmp_path / "voc", precision="dynamic", **given)
    assert min(one.foreground_iou for one in found.certificate.rounds) >= 0.95
    given["allow"] = True
    found = export(tmp_path / "voc", precision="int8", calibrate=photos, **given)
    assert min(one.foreground_iou for one in found.certificate.rounds) > 0.9
    assert found.certificate.int8_tensors > 100
    assert found.file.stat().st_size < 0.33 * found.certificate.weights_bytes
