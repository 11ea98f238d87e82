"""A network that learns from one corrected photo after the other: its last layer, at once."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeplab import weights
from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import Sample
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models import DeepLab, build
from deeplab.photo.images import InputSpec, Photo
from deeplab.segmenter import Segmenter
from deeplab.training.fit import FitReport, can_fit, fit_classifier
from deeplab.training.initialise import (
    choose_config,
    classifier_rows,
    locate_start,
    start_frame,
    take_over,
)
from deeplab.weights.release import labels_of, save

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Correction:
    """A photo that somebody has labelled.

    Attributes:
        photo: the file.
        label: (H, W) uint8 class ids, 255 = ignored.
    """

    photo: Path
    label: UInt8


class _Corrections:
    """A data set of corrections, as the fit reads it."""

    split, encoding = "train", MaskEncoding(values=(0,))
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()

    def __init__(self, labels: LabelSet, corrections: Mapping[str, Correction]) -> None:
        self.labels, self.ids = labels, tuple(corrections)
        self._corrections = corrections

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        name = self.ids[index]
        found = self._corrections[name]
        return Sample(Photo(found.photo).pixels(), found.label, name)


class Learner:
    """Fits the last layer of a network to what has been corrected so far.

    Args:
        model: a name or a file of weights; its features stay as they are.
        labels: the classes to learn; the first is the background.
        known: class id of the network → name of the class that is the same. As long as no photo
            shows such a class, it is seen where the network as it was would have seen it, about.

    Raises:
        InputError: the network's last layer cannot be fitted.
        WeightsError, ModelNotFoundError: there are no such weights.
    """

    def __init__(
        self, model: str | Path, labels: LabelSet, *, known: Mapping[int, str] | None = None
    ) -> None:
        self._known = {name: index for index, name in (known or {}).items()}
        self._file = locate_start(str(model))
        self._config, self._state, _ = weights.load_with_report(self._file)
        self._labels = labels
        self._frame = start_frame(self._file)
        self._folder = tempfile.TemporaryDirectory(prefix="deeplab-learned-")
        self._remembered: dict[str, Tensor] = {}
        self._fits = 0
        self._lock = threading.Lock()
        if not can_fit(build(choose_config({}, self._config, len(labels)))):
            raise InputError(
                f"model: the last layer of {self._file.name} is not one 1×1 convolution, so it "
                "cannot be fitted at once."
            )

    def learn(self, corrections: Mapping[str, Correction]) -> tuple[Segmenter, FitReport]:
        """Return a network that knows the classes, and what the fit found.

        Photos that were seen before are not looked at again.

        Args:
            corrections: by name; at least one. Another photo has another name.

        Raises:
            ImageError: a photo cannot be read.
        """
        with self._lock:
            for name in [name for name in self._remembered if name not in corrections]:
                del self._remembered[name]
            network = build(choose_config({}, self._config, len(self._labels)))
            source = labels_of(self._file, self._config)
            report = take_over(network, self._state, labels=self._labels, source_labels=source)
            config = network.config
            assert config.pixel_mean is not None
            assert config.pixel_std is not None
            height, width = self._frame
            frame = InputSpec(
                height=height, width=width, mean=config.pixel_mean, std=config.pixel_std
            )
            found = fit_classifier(
                network,
                _Corrections(self._labels, corrections),
                frame=frame,
                known=report.classes,
                start_rows=classifier_rows(self._state),
                remembered=self._remembered,
            )
            self._keep_absent(network, found.absent, source)
            self._fits += 1
            path = Path(self._folder.name) / f"fit-{self._fits}"
            save(path, config, network.state_dict(), labels=self._labels, input_spec=frame)
            segmenter = Segmenter(path.with_suffix(".json"))
            for old in Path(self._folder.name).glob(f"fit-{self._fits - 1}.*"):
                old.unlink()
            return segmenter, found

    @torch.no_grad()
    def _keep_absent(
        self, network: DeepLab, absent: Sequence[str], source: LabelSet | None
    ) -> None:
        """Give classes that no photo shows their old distances from those that photos show.

        That is their mean, as a linear layer cannot keep all of them.
        """
        rows, layer = classifier_rows(self._state), network.classifier
        if rows is None or layer is None or layer.bias is None:
            return
        if source is None or source.background is None:
            return
        fitted = torch.cat([layer.weight[:, :, 0, 0], layer.bias[:, None]], 1)
        shown = {0: source.background}
        shown |= {
            self._labels.index(name): index
            for name, index in self._known.items()
            if name not in absent
        }
        offsets = torch.stack([fitted[own] - rows[old] for own, old in shown.items()]).mean(0)
        for name in absent:
            if name in self._known:
                row = rows[self._known[name]] + offsets
                index = self._labels.index(name)
                layer.weight[index, :, 0, 0], layer.bias[index] = row[:-1], row[-1]

    def close(self) -> None:
        """Remove what was kept on the disk."""
        self._folder.cleanup()
