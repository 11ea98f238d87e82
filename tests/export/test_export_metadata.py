from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from pairs import PHOTOS

from deeplab import Segmenter
from deeplab.errors import ModelError
from deeplab.labels import CAMVID, VOC, LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.tflite import file as tflite_file
from deeplab.tflite.metadata import ENTRY, read_metadata
from tiny_tflite import tiny_network

metadata = pytest.importorskip("deeplab.export.metadata")

SPEC = InputSpec(height=9, width=9)


def make_card(**given: object) -> NetworkCard:
    labels = LabelSet(("Hintergrund", "Straße", "猫", "tv"), background=None)
    card = {"spec": SPEC, "labels": labels, "output": "logits", "align_corners": True}
    return NetworkCard(**{**card, **given})


def fields(data: bytes, position: int) -> dict[int, int]:
    """Return the places of a flatbuffer table's values, by position."""
    (back,) = struct.unpack_from("<i", data, position)
    size = struct.unpack_from("<H", data, position - back)[0]
    slots = struct.unpack_from(f"<{(size - 4) // 2}H", data, position - back + 4)
    return {i: position + slot for i, slot in enumerate(slots) if slot}


def follow(data: bytes, place: int) -> int:
    return place + struct.unpack_from("<I", data, place)[0]


def elements(data: bytes, place: int) -> list[int]:
    start = follow(data, place)
    count = struct.unpack_from("<I", data, start)[0]
    return [follow(data, start + 4 + 4 * i) for i in range(count)]


def outline(data: bytes) -> dict[str, set[int]]:
    """Return which fields the tables hold, from the model down to the label file."""
    model = follow(data, 0)
    graph = elements(data, fields(data, model)[3])[0]
    image = elements(data, fields(data, graph)[2])[0]
    masks = elements(data, fields(data, graph)[3])[0]
    content = follow(data, fields(data, masks)[3])
    labels = elements(data, fields(data, masks)[6])[0]
    normalisation = elements(data, fields(data, image)[4])[0]
    kinds = {
        "content": data[fields(data, content)[0]],
        "labels": data[fields(data, labels)[2]],
        "normalisation": data[fields(data, normalisation)[0]],
        "range": {*fields(data, follow(data, fields(data, content)[2]))},
    }  # fmt: skip
    tables = {"image": image, "masks": masks, "content": content, "labels": labels}
    return kinds | {name: {*fields(data, place)} for name, place in tables.items()}


@pytest.mark.reference
def test_it_is_laid_out_as_in_the_public_file(reference):
    public = tflite_file.read(reference / "models/deeplabv3_with_metadata.tflite")
    card = make_card(spec=InputSpec(height=257, width=257), labels=VOC)
    ours = tflite_file.parse(metadata.write(tiny_network(), card))
    assert outline(ours.entries[ENTRY]) == outline(public.entries[ENTRY])
    theirs, mine = read_metadata(public), read_metadata(ours)
    assert (mine.mean, mine.std, mine.labels) == (theirs.mean, theirs.std, theirs.labels)
    assert mine.description == theirs.description
    assert ours.associated_files["labels.txt"] == public.associated_files["labelmap.txt"]


def test_what_is_written_is_read():
    mean = (123.15, 115.9, 103.06)
    spec = InputSpec(height=9, width=9, mean=mean, std=(1.0, 1.0, 1.0), fit="stretch")
    card = make_card(spec=spec)
    written = metadata.write(tiny_network(), card, licence="MIT")
    assert written == metadata.write(tiny_network(), card, licence="MIT")
    file = tflite_file.parse(written)
    found = read_metadata(file)
    assert (found.name, found.licence) == ("ImageSegmenter", "MIT")
    assert found.labels.names == card.labels.names
    assert found.mean == pytest.approx(mean)
    assert found.std == (1.0, 1.0, 1.0)
    assert NetworkCard.from_json(file.entries[KEY].decode(), name="x") == card
    again = tflite_file.parse(metadata.write(written, make_card()))
    assert NetworkCard.from_json(again.entries[KEY].decode(), name="x") == make_card()
    assert [*again.associated_files] == ["labels.txt"]


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_segmenter_believes_the_card(align_corners, tmp_path):
    model = metadata.write(tiny_network(resize=False), make_card(align_corners=align_corners))
    (tmp_path / "net.tflite").write_bytes(model)
    segmenter = Segmenter(tmp_path / "net.tflite", runtime="litert")
    assert segmenter.network.align_corners is align_corners
    assert segmenter.labels == make_card().labels


def test_a_card_of_other_labels_is_not_believed(tmp_path):
    """Somebody else's tool replaced the label file: the standard metadata is what counts."""
    one = metadata.write(tiny_network(), make_card())
    other = LabelSet(("a", "b", "c", "d"))
    file = tflite_file.parse(metadata.write(tiny_network(), make_card(labels=other)))
    edit = metadata.GraphEdit(tflite_file.parse(one))
    edit.set_entry(ENTRY, file.entries[ENTRY])
    edit.add_file("labels.txt", b"a\nb\nc\nd\n")
    (tmp_path / "net.tflite").write_bytes(edit.finish(tflite_file.parse(one).outputs[0]))
    assert Segmenter(tmp_path / "net.tflite").labels.names == other.names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "damaged"),
        ("{}", "damaged"),
        ('{"version": 3}', "Update deeplab"),
        ('{"version": 1, "input": 3}', "damaged"),
    ],
)
def test_a_damaged_card_is_told(text, words):
    with pytest.raises(ModelError, match=words):
        NetworkCard.from_json(text, name="net.tflite")


def test_a_card_keeps_known_label_sets():
    card = make_card(labels=CAMVID)
    assert NetworkCard.from_json(card.to_json(), name="x").labels is CAMVID


# --- clients that nobody here wrote -----------------------------------------------------------

MEDIAPIPE = """
import sys, numpy, mediapipe
from mediapipe.tasks.python import BaseOptions, vision
model, picture, answer = sys.argv[1:]
options = vision.ImageSegmenterOptions(
    base_options=BaseOptions(model_asset_path=model), output_category_mask=True)
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    found = segmenter.segment(mediapipe.Image.create_from_file(picture))
    numpy.save(answer, found.category_mask.numpy_view().squeeze())
    print(*segmenter.labels, sep="|")
"""

TASK_LIBRARY = """
import json, sys, numpy
from tflite_support import metadata
from tflite_support.task import vision
model, picture, answer = sys.argv[1:]
told = metadata.MetadataDisplayer.with_model_file(model)
graph = json.loads(told.get_metadata_json())["subgraph_metadata"][0]
image, masks = graph["input_tensor_metadata"][0], graph["output_tensor_metadata"][0]
assert image["process_units"][0]["options"] == {"mean": [127.5], "std": [127.5]}, image
assert (image["name"], masks["name"]) == ("image", "segmentation_masks")
assert masks["associated_files"][0]["type"] == "TENSOR_AXIS_LABELS"
assert told.get_packed_associated_file_list() == ["labels.txt"]
segmenter = vision.ImageSegmenter.create_from_file(model)
found = segmenter.segment(vision.TensorImage.create_from_file(picture)).segmentations[0]
mask = numpy.array(found.category_mask).reshape(found.height, found.width)
numpy.save(answer, mask)
print(*(label.category_name for label in found.colored_labels), sep="|")
"""


@pytest.fixture
def exported(pair, tmp_path, convert_once) -> Path:
    from deeplab.export import export

    return export(pair, file=tmp_path / "net.tflite", photos=PHOTOS[:1]).file


def ask(clients: Path, name: str, code: str, model: Path, picture: Path) -> tuple[str, np.ndarray]:
    answer = model.with_name("answer.npy")
    python = clients / name / "bin/python"
    done = subprocess.run(
        [python, "-c", code, model, picture, answer], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1], np.load(answer)


@pytest.mark.clients
def test_mediapipe_gives_the_same_mask(clients, exported, tmp_path):
    segmenter = Segmenter(exported)
    size = (segmenter.spec.width, segmenter.spec.height)
    Image.open(PHOTOS[0]).convert("RGB").resize(size).save(tmp_path / "photo.png")
    labels, mask = ask(clients, "mediapipe", MEDIAPIPE, exported, tmp_path / "photo.png")
    ours = segmenter(tmp_path / "photo.png").mask
    assert labels.split("|") == list(segmenter.labels.names)
    assert mask.shape == ours.shape
    assert (mask == ours).mean() > 0.999
    assert len(np.unique(ours)) > 1


@pytest.mark.clients
def test_the_task_library_reads_it(clients, exported, tmp_path):
    segmenter = Segmenter(exported)
    size = (segmenter.spec.width, segmenter.spec.height)
    Image.open(PHOTOS[0]).convert("RGB").resize(size).save(tmp_path / "photo.png")
    labels, mask = ask(clients, "tflite-support", TASK_LIBRARY, exported, tmp_path / "photo.png")
    logits = segmenter(tmp_path / "photo.png").logits
    assert labels.split("|") == list(segmenter.labels.names)
    positive = np.maximum(logits, 0)  # it takes class 0 where no logit is above 0
    assert (mask == positive.argmax(-1)).mean() > 0.99
