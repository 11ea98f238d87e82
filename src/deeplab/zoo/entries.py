"""The entries of the zoo: data only. :mod:`deeplab.zoo` finds and checks their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deeplab.labels import ADE20K_OTHER, CITYSCAPES, VOC, LabelSet
from deeplab.photo.images import InputSpec


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """One published file.

    Attributes:
        name: what the file is called here.
        address: where its publisher keeps it; "" for a file that comes inside the package.
        sha256: 64 hex digits; or only the first few, where the publisher tells no more; or "",
            where nothing is known: then the first download is trusted, and remembered.
        size: in bytes; None where nothing is known.
        licence: SPDX identifier, or the publisher's words.
        miou: its mean intersection over union, 0..1; None for a classifier's weights.
        protocol: on what, by whom and how that was measured; of a classifier's, what it is.
        kind: "model" runs as it is; "weights" are read by ``deeplab import``.
        labels: its classes; None for weights of a backbone.
        input: what the network is fed with; None for weights, which take any size.
        align_corners: how its logits lie on the frame (see ``Network`` in the runtimes).
        file_name: the file's name on disk; unless given, the last part of the address, or of a
            file inside the package its name.
    """

    name: str
    address: str
    sha256: str
    size: int | None
    licence: str
    miou: float | None
    protocol: str
    kind: Literal["model", "weights"] = "model"
    labels: LabelSet | None = VOC
    input: InputSpec | None = None
    align_corners: bool = True
    file_name: str = ""

    def __post_init__(self) -> None:
        if not self.file_name:
            own = self.address.rsplit("/", 1)[-1] or f"{self.name}.tflite"
            object.__setattr__(self, "file_name", own)

    @property
    def comes_inside(self) -> bool:
        """Whether the file comes inside the package, and so from nowhere else."""
        return not self.address

    @property
    def origin(self) -> str:
        """Where the file comes from, in words: its address, or "inside the package"."""
        return self.address or "inside the package"


_262 = (
    "262 VOC 2012 val photos, 21 classes of which each is on 6 or more; photo letterboxed, exact "
    "mask at the photo's own size"
)
_CORAL = "https://github.com/google-coral/test_data/raw/master/"
_TENSORFLOW = "https://storage.googleapis.com/download.tensorflow.org/models/"
_HUB = "https://huggingface.co/"
_TORCHVISION = "https://download.pytorch.org/models/"
_VOC_VAL = "VOC 2012 val, published: one scale, no flip, output stride 16"
_VOC_VAL_512 = "VOC 2012 val, published: photos of 512 px, one scale, no flip, output stride 16"
_VOC_TEST = "VOC 2012 test, published: 6 scales, flip, output stride 8"
_CITIES = "Cityscapes val, published: one scale, no flip, output stride 16"
_CITIES_32 = "Cityscapes val, published: one scale, no flip, output stride 32"
_VOC_VAL_8BIT = f"{_VOC_VAL}, quantised to 8 bits"
_IMAGENET = "a classifier of ImageNet: a backbone to train from, not measured"
_ADE20K_VAL = "ADE20K val, published: 6 scales, flip, output stride 8"
_COCO_VAL = "COCO val 2017 with the 21 VOC classes, published"

# name, bytes, mIoU, side of the frame, sha256
_BUNDLED: tuple[tuple[str, int, float, int, str], ...] = (
    ("voc", 2515363, 0.736, 609,
     "0fbcacbb946bf317af89dc9966938326c161723bedc76ad5ff6371e2540814e2"),
    ("voc-fast", 916995, 0.693, 577,
     "e3b529351c530be31a2451eefe53d70d1e6db7df6297c2d1d6ada72a4237391f"),
)  # fmt: skip
"""Our own models, which come inside the package."""

# name, its file, mIoU, how that was measured, classes
_CHECKPOINTS: tuple[tuple[str, str, float | None, str, LabelSet | None], ...] = (
    ("tf-mobilenetv2-dm05-voc-trainaug", "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01",
     0.7019, _VOC_VAL, VOC),
    ("tf-mobilenetv2-dm05-voc-trainval", "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01",
     0.7183, "VOC 2012 test, published: one scale, no flip, output stride 8", VOC),
    ("tf-mobilenetv2-voc-trainaug", "deeplabv3_mnv2_pascal_train_aug_2018_01_29",
     0.7532, _VOC_VAL, VOC),
    ("tf-mobilenetv2-voc-trainval", "deeplabv3_mnv2_pascal_trainval_2018_01_29",
     0.8025, _VOC_TEST, VOC),
    ("tf-xception65-voc-trainaug", "deeplabv3_pascal_train_aug_2018_01_04",
     0.8220, _VOC_VAL, VOC),
    ("tf-xception65-voc-trainval", "deeplabv3_pascal_trainval_2018_01_04",
     0.8780, _VOC_TEST, VOC),
    ("tf-mobilenetv2-dm05-voc-8bit", "deeplabv3_mnv2_dm05_pascal_train_aug_8bit_2019_04_26",
     0.6965, _VOC_VAL_8BIT, VOC),
    ("tf-mobilenetv2-voc-8bit", "deeplabv3_mnv2_pascal_train_aug_8bit_2019_04_26",
     0.7426, _VOC_VAL_8BIT, VOC),
    ("tf-mobilenetv2-cityscapes", "deeplabv3_mnv2_cityscapes_train_2018_02_05",
     0.7071, _CITIES, CITYSCAPES),
    ("tf-mobilenetv3-large-cityscapes", "deeplab_mnv3_large_cityscapes_trainfine_2019_11_15",
     0.7241, _CITIES_32, CITYSCAPES),
    ("tf-mobilenetv3-small-cityscapes", "deeplab_mnv3_small_cityscapes_trainfine_2019_11_15",
     0.6899, _CITIES_32, CITYSCAPES),
    ("tf-xception65-cityscapes", "deeplabv3_cityscapes_train_2018_02_06",
     0.7879, _CITIES, CITYSCAPES),
    ("tf-xception71-dpc-cityscapes", "deeplab_cityscapes_xception71_trainfine_2018_09_08",
     0.8031, _CITIES, CITYSCAPES),
    ("tf-xception71-dpc-cityscapes-trainval",
     "deeplab_cityscapes_xception71_trainvalfine_2018_09_08",
     0.8266, "Cityscapes test, published: 6 scales, flip, output stride 8", CITYSCAPES),
    ("tf-edgetpu-cityscapes", "edgetpu-deeplab_2020_03_09", 0.741, _CITIES, CITYSCAPES),
    ("tf-edgetpu-slim-cityscapes", "edgetpu-deeplab-slim_2020_03_09", 0.732, _CITIES, CITYSCAPES),
    ("tf-mobilenetv2-ade20k", "deeplabv3_mnv2_ade20k_train_2018_12_03",
     0.3204, "ADE20K val, published: photos of at most 257 px, one scale, no flip, output "
     "stride 16", ADE20K_OTHER),
    ("tf-xception65-ade20k", "deeplabv3_xception_ade20k_train_2018_05_29",
     0.4565, _ADE20K_VAL, ADE20K_OTHER),
    ("tf-xception41-imagenet", "xception_41_2018_05_09", None, _IMAGENET, None),
    ("tf-xception65-imagenet", "deeplabv3_xception_2018_01_04", None, _IMAGENET, None),
    ("tf-xception65-coco", "xception_65_coco_pretrained_2018_10_02",
     None, "trained on ImageNet and COCO: a backbone to train from, not measured", None),
    ("tf-xception71-imagenet", "xception_71_2018_05_09", None, _IMAGENET, None),
    ("tf-resnet50-beta-imagenet", "resnet_v1_50_2018_05_04", None, _IMAGENET, None),
    ("tf-resnet101-beta-imagenet", "resnet_v1_101_2018_05_04", None, _IMAGENET, None),
)  # fmt: skip
"""The 24 files of the original's model zoo, which states no hashes.

Source: research/deeplab/g3doc/model_zoo.md and quantize.md of tensorflow/models.
"""

# name, what its file is called after "deeplabv3_": it ends in the hash's first digits; mIoU
_TORCHVISION_WEIGHTS = (
    ("torchvision-resnet50", "resnet50_coco-cd0a2569", 0.664),
    ("torchvision-resnet101", "resnet101_coco-586e9e4e", 0.674),
    ("torchvision-mobilenetv3", "mobilenet_v3_large-fc3c493d", 0.603),
)

# name, Apple's repository on the Hugging Face Hub, mIoU
_APPLE_WEIGHTS = (
    ("apple-mobilevit-s-voc", "deeplabv3-mobilevit-small", 0.791),
    ("apple-mobilevit-xs-voc", "deeplabv3-mobilevit-x-small", 0.771),
    ("apple-mobilevit-xxs-voc", "deeplabv3-mobilevit-xx-small", 0.736),
    ("apple-mobilevitv2-voc", "mobilevitv2-1.0-voc-deeplabv3", 0.7894),
)
"""DeepLab v3 on MobileViT, 512 pixels. Source: 2110.02178 table 3; the zoo of apple/ml-cvnets."""

MODELS: tuple[ZooModel, ...] = (
    *(
        ZooModel(
            name=name,
            address="",
            sha256=sha256,
            size=size,
            licence="Apache-2.0",
            miou=miou,
            protocol=_262,
            input=InputSpec(height=side, width=side),
        )
        for name, size, miou, side, sha256 in _BUNDLED
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-257",
        address="https://storage.googleapis.com/download.tensorflow.org/models/tflite/gpu/"
        "deeplabv3_257_mv_gpu.tflite",
        sha256="68a539782c2c6a72f8aac3724600124a85ed977162b44e84cbae5db717c933c6",
        size=2779264,
        licence="Apache-2.0",
        miou=0.599,
        protocol=_262,
        input=InputSpec(height=257, width=257),
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-257-metadata",
        address="https://github.com/tensorflow/tflite-support/raw/master/"
        "tensorflow_lite_support/cc/test/testdata/task/vision/deeplabv3.tflite",
        sha256="9711334db2b01d5894feb8ed0f5cb3e97d125b8d229f8d8692f625801818f5ef",
        size=2780051,
        licence="Apache-2.0",
        miou=0.599,
        protocol=f"{_262}; the same network with Task Library metadata",
        input=InputSpec(height=257, width=257),
        file_name="deeplabv3_with_metadata.tflite",
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-513-int8",
        address=f"{_CORAL}deeplabv3_mnv2_dm05_pascal_quant.tflite",
        sha256="0470d2a782aa54eeeb99d32e7b6b3fb7722905c7c4f5d26bd957ec861366d48b",
        size=760904,
        licence="Apache-2.0",
        miou=0.679,
        protocol=_262,
        input=InputSpec(height=513, width=513),
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-513-int8",
        address=f"{_CORAL}deeplabv3_mnv2_pascal_quant.tflite",
        sha256="350af47fd346ea6d74b58833a351f583ba860e9806ec5bd292ff8d8f1f249398",
        size=2193224,
        licence="Apache-2.0",
        miou=0.716,
        protocol=_262,
        input=InputSpec(height=513, width=513),
    ),
    ZooModel(
        name="deeplab-edgetpu-slim-cityscapes-513-int8",
        address=f"{_CORAL}deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite",
        sha256="322fe29945cb1693f426952f2a330ab67ea5678545ddee6f2548e0cfd0ca03e5",
        size=2157328,
        licence="Apache-2.0",
        miou=0.732,
        protocol="Cityscapes val, published for the float network at output stride 16 and full "
        "size; the 513 px file was not measured",
        labels=CITYSCAPES,
        input=InputSpec(height=513, width=513),
    ),
    *(
        ZooModel(
            name=name,
            address=f"{_TENSORFLOW}{file}.tar.gz",
            sha256="",
            size=None,
            licence="Apache-2.0",
            miou=miou,
            protocol=protocol,
            kind="weights",
            labels=labels,
        )
        for name, file, miou, protocol, labels in _CHECKPOINTS
    ),
    *(
        ZooModel(
            name=name,
            address=f"{_TORCHVISION}deeplabv3_{file}.pth",
            sha256=file.rsplit("-", 1)[-1],
            size=None,
            licence="BSD-3-Clause (torchvision)",
            miou=miou,
            protocol=_COCO_VAL,
            kind="weights",
            align_corners=False,
        )
        for name, file, miou in _TORCHVISION_WEIGHTS
    ),
    *(
        ZooModel(
            name=name,
            address=f"{_HUB}apple/{repository}/resolve/main/pytorch_model.bin",
            sha256="",
            size=None,
            licence="Apple's sample code licence (LICENSE of apple/ml-cvnets); not open source",
            miou=miou,
            protocol=_VOC_VAL_512,
            kind="weights",
            align_corners=False,
            file_name=f"{repository}.bin",
        )
        for name, repository, miou in _APPLE_WEIGHTS
    ),
)
"""Everything that has a name, the ready models first."""

ALIASES: dict[str, str] = {
    "starter": "deeplabv3-mobilenetv2-dm05-257",
    "cityscapes": "deeplab-edgetpu-slim-cityscapes-513-int8",
}
"""Short names."""
