"""Let TensorFlow write small TFRecord shards, as the original's build_voc2012_data.py does.

    python tests/oracles/write_shards.py tests/data/shards

in an environment with tensorflow-cpu and pillow. The test of them draws the same pictures.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from shard_pictures import draw


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _whole(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def example(index: int, *, labelled: bool = True) -> bytes:
    """Return one serialised record."""
    photo, mask = draw(index)
    features = {
        "image/encoded": _bytes(_encode(photo, "JPEG")),
        "image/filename": _bytes(f"2007_{index:06}".encode()),
        "image/format": _bytes(b"jpeg"),
        "image/height": _whole(photo.shape[0]),
        "image/width": _whole(photo.shape[1]),
        "image/channels": _whole(3),
        "image/segmentation/class/encoded": _bytes(_encode(mask, "PNG") if labelled else b""),
        "image/segmentation/class/format": _bytes(b"png"),
        "image/mean": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
    }
    whole = tf.train.Example(features=tf.train.Features(feature=features))
    return whole.SerializeToString(deterministic=True)


def main() -> None:
    """Write train in two shards, val in one, and trainval, which repeats them."""
    folder = Path(sys.argv[1])
    shards = {
        "train-00000-of-00002": [0, 1],
        "train-00001-of-00002": [2],
        "val-00000-of-00001": [3, 4],
        "trainval-00000-of-00001": [0, 3, 5],
    }
    for name, indices in shards.items():
        with tf.io.TFRecordWriter(str(folder / f"{name}.tfrecord")) as writer:
            for index in indices:
                writer.write(example(index))
            if name.startswith("val"):
                writer.write(example(9, labelled=False))


if __name__ == "__main__":
    main()
