"""Photo in, :class:`~deeplab.photo.results.Segmentation` out, whatever runs the network."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab import zoo
from deeplab.errors import DeepLabError, InputError, ModelError
from deeplab.labels import LABEL_SETS, LabelSet, open_labels
from deeplab.limits import MAX_THREADS, MAX_WORKERS, check_whole
from deeplab.photo.band_pictures import BandPhoto, fill_frame, open_photo
from deeplab.photo.confidence import Scores, check_temperature, mean_argmax
from deeplab.photo.images import Fit, Geometry, InputSpec, Photo, Source
from deeplab.photo.memory import Budget, default_budget, estimate_source, parse_bytes
from deeplab.photo.notebook_bar import counted
from deeplab.photo.overlapping import OverlappingSegmentation, find_masks
from deeplab.photo.results import Segmentation
from deeplab.photo.upsample import argmax_bilinear
from deeplab.runtimes import (
    Network,
    Normalisation,
    Precision,
    Variant,
    describe,
    open_network,
)
from deeplab.runtimes.answers import check_count
from deeplab.runtimes.batches import LARGEST_BATCH, GatheredNetwork, likes_batches
from deeplab.runtimes.cut import open_cut
from deeplab.runtimes.devices import read_device
from deeplab.runtimes.looks import Look, plan_looks
from deeplab.runtimes.network_card import NetworkCard, read_normalisation, refuse_special
from deeplab.tiles import Tiles
from deeplab.tiles.context import Context, Halves, check_context
from deeplab.tiles.open import open_picture
from deeplab.tiles.windows import OVERLAP

if TYPE_CHECKING:
    from deeplab.video.play import Video

_Opened = TypeVar("_Opened")

Runtime = Literal["litert", "onnx", "openvino", "executorch", "torch"]
Labels = LabelSet | str | PathLike[str]

_MOST_THREADS = 4
"""Small networks gain nothing from more threads per photo."""


class Segmenter:
    """A network, ready for photos. It is safe to use from several threads.

    Args:
        model: the name of a model (see :mod:`deeplab.zoo`), or the path of a ``.tflite``,
            ``.onnx``, ``.xml`` (OpenVINO) or ``.pte`` (ExecuTorch) file or of a release pair, or
            ``hf://user/name[@revision]`` on the Hugging Face Hub. A named model that is not on this
            machine is downloaded.
        threads: how many threads the network may use on one photo; None takes the machine's
            cores, four at most.
        streams: on how many photos the network may work at once, when several threads call; each
            takes memory of its own.
        runtime: "litert" or "openvino" for a ``.tflite``, "onnx" or "openvino" for an ``.onnx``;
            each other kind of file has one that runs it. None takes the first.
        fit: "letterbox" keeps the photo's shape, "stretch" fills the network's frame; None takes
            what the model was published with, letterbox where it does not say.
        labels: a label set, its name ("voc"), or the path of a label file with one name per line;
            None takes the model's own.
        normalisation: (mean, std), three numbers each in units of 0..255, or "imagenet", "0..1",
            "-1..1", "0..255"; None takes the model's own, and where a ``.tflite`` does not say,
            -1..1.
        exact: decode every pixel of a JPEG. Otherwise large JPEGs are decoded at a half, a quarter
            or an eighth, never below three times what the network sees.
        size: (height, width) of the network's frame, for release pairs and files that take any;
            None takes its own.
        output_stride: 8, 16 or 32, release pairs only; None takes its own.
        output_name: which output of a file with several is the answer; None takes the first that
            can be.
        device: on what the network runs: "cpu", "gpu", "npu", "cuda", "cuda:1", "mps", "tensorrt",
            as far as its runtime knows it and this machine has it, or "auto": the fastest of them.
            None is the CPU. Any other has to answer a photo as the CPU does when it is opened.
        precision: "bfloat16" halves the network's time on processors that have it, with runtime
            "openvino"; the borders of masks change, and small objects more.
        temperature: of probabilities, see :mod:`deeplab.photo.confidence`; None takes the model's
            own, which is 1 where it was not calibrated.
        scales: look at the photo in frames of these sizes, 1 is the model's own; the probabilities
            are averaged at the photo's size. Others than 1 need a model that takes any size.
        flip: also look at the mirrored photo, at every scale; works with every model that gives
            logits or probabilities.

    Attributes:
        path: the network file.
        card: what is known of the network file; ``card.assumed`` says what nobody said.
        spec: what the network is fed with.
        labels: its classes; where they overlap (``labels.overlap``) results are
            :class:`~deeplab.photo.overlapping.OverlappingSegmentation`.
        temperature: of its probabilities.
        looks: how often, and how, it looks at each photo.
        network: what runs single photos, for those who measure it; one frame at a time.
            ``network.device`` says on what.

    Raises:
        ModelNotFoundError: there is no such model.
        ModelError: the file is no DeepLab, or does not say what its classes are.
        DownloadError: a named model could not be downloaded.
        InputError: ``labels`` or another argument does not fit.
        MissingExtraError: the runtime is not installed.
    """

    path: Path
    card: NetworkCard
    spec: InputSpec
    labels: LabelSet
    temperature: float
    looks: tuple[Look, ...]
    network: Network

    def __init__(
        self,
        model: str | PathLike[str] = "voc",
        *,
        threads: int | None = None,
        streams: int = 1,
        runtime: Runtime | None = None,
        fit: Fit | None = None,
        labels: Labels | None = None,
        normalisation: Normalisation | str | None = None,
        exact: bool = False,
        size: tuple[int, int] | None = None,
        output_stride: int | None = None,
        output_name: str | None = None,
        device: str | None = None,
        precision: Precision = "float32",
        temperature: float | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        if threads is not None:
            check_whole("threads", threads, most=MAX_THREADS)
        check_whole("streams", streams, most=MAX_WORKERS)
        self._exact = exact
        self._arguments: dict[str, Any] = {
            "model": model,
            "threads": threads,
            "streams": streams,
            "runtime": runtime,
            "fit": fit,
            "labels": labels,
            "normalisation": normalisation,
            "exact": exact,
            "size": size,
            "output_stride": output_stride,
            "output_name": output_name,
            "device": device,
            "precision": precision,
            "temperature": temperature,
            "scales": scales,
            "flip": flip,
        }
        located = zoo.locate_file(model)
        self.path = located.path
        known, path = located.entry, located.path
        if known is not None and zoo.is_name(model) and read_device(device).kind == "gpu":
            path = zoo.find_float16(known) or path  # LiteRT's GPU computes in floats
        file = describe(
            path,
            runtime=runtime,
            normalisation=read_normalisation(normalisation) if normalisation else None,
            assume=known.input if known else None,
            labels=open_labels(labels) if labels is not None else None,
            fit=fit,
            output_name=output_name,
            variant=Variant(size=size, output_stride=output_stride),
            precision=precision,
            device=device,
            trusted=known is not None,
        )
        self.card, self.spec = file.card, file.card.spec
        self.labels = _name_classes(file.card, known.labels if known else None, path)
        if self.card.thresholds and temperature is not None:
            raise InputError(
                "temperature: the classes of this model overlap, and each has a threshold of its "
                "own; leave it out."
            )
        self.temperature = check_temperature(
            self.card.temperature if temperature is None else temperature
        )
        self.looks = plan_looks(self.card, scales=scales, flip=flip, name=path.name)
        threads = threads or default_threads()
        self.network = network = open_network(file, threads=threads)
        # What comes later takes the same device, which was compared with the CPU by now.
        chosen = dataclasses.replace(file, device=read_device(network.device), compared=True)
        self._open_stream = partial(open_network, chosen)
        self._grid: tuple[int, int] | None = None
        self._of_windows: _Streams[Network] | None = None
        self._open_cut = partial(open_cut, chosen, threads=1)
        self._halves: tuple[int, Halves] | None = None
        if network.device == "cpu":
            opening = partial(self._open_stream, threads=threads)
            self._called = _Streams(opening, streams, first=network)
        else:
            self._called = _line_up(network)

    def __reduce__(self) -> tuple[Callable[[], Segmenter], tuple[()]]:
        """Travel to other processes as the arguments; the model is opened again there."""
        return partial(Segmenter, **self._arguments), ()

    def __repr__(self) -> str:
        spec, model = self.spec, self._arguments["model"]
        return (
            f"<Segmenter {os.fspath(model)}: {len(self.labels)} classes, "
            f"{spec.height}×{spec.width}, {self.card.output}>"
        )

    def __call__(self, photo: Source | Photo) -> Segmentation:
        """Segment one photo.

        Args:
            photo: a path or address, the bytes of a file, a PIL image, an (H, W, 3) uint8 RGB
                array, or a `Photo`. Of a network for other pictures (``spec.bands``), an
                (H, W, C) array or a file of such numbers: ``.npy``, ``.tif``, …

        Raises:
            ImageError: the photo cannot be read.
            InputError: it is an array of another shape or type.
        """
        return self._segment(photo, self._called)

    @overload
    def map(
        self,
        photos: Iterable[Source],
        *,
        workers: int | None = ...,
        memory: int | str | None = ...,
        on_error: Literal["raise"] = ...,
    ) -> Iterator[Segmentation]: ...
    @overload
    def map(
        self,
        photos: Iterable[Source],
        *,
        workers: int | None = ...,
        memory: int | str | None = ...,
        on_error: Literal["yield"],
    ) -> Iterator[Segmentation | DeepLabError]: ...
    def map(
        self,
        photos: Iterable[Source],
        *,
        workers: int | None = None,
        memory: int | str | None = None,
        on_error: Literal["raise", "yield"] = "raise",
    ) -> Iterator[Segmentation | DeepLabError]:
        """Segment many photos over all cores, in the order in which they are given.

        Photos are taken from the iterable as they are needed, a few ahead of the results. The
        results do not depend on the number of workers. In a notebook a line counts them.

        Args:
            photos: what :meth:`__call__` takes, any number.
            workers: photos worked on at the same time, each on one thread; None takes the cores,
                and on a device as many as a batch has: what waits for it runs together.
            memory: that all photos at work may take together, networks and results apart: bytes,
                or "2GB"; None takes three quarters of what there is. Where many are large, fewer
                are worked on at once; for one larger than that there is :meth:`tiles`.
            on_error: "raise" ends at the first photo that cannot be read; "yield" gives its error
                in place of its result and goes on.
        """
        workers = self._count_workers() if workers is None else workers
        check_whole("workers", workers, most=MAX_WORKERS)
        if isinstance(photos, (str, bytes, PathLike)):
            raise InputError(f"photos: got one {type(photos).__name__}, expected several photos.")
        if on_error not in ("raise", "yield"):
            raise InputError(f"on_error: got '{on_error}', expected 'raise' or 'yield'.")
        amount = parse_bytes("memory", memory) if isinstance(memory, str) else memory
        budget = Budget(default_budget() if amount is None else amount)
        return counted(
            self._map(photos, workers, budget, on_error == "raise"), photos, what="photos"
        )

    def _map(
        self, photos: Iterable[Source], workers: int, budget: Budget, stop: bool
    ) -> Iterator[Segmentation | DeepLabError]:
        streams = self._place_workers(workers)
        waiting: deque[Future[Segmentation]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="deeplab") as pool:
            try:
                for photo in photos:
                    waiting.append(pool.submit(self._segment_within, budget, photo, streams))
                    if len(waiting) > 2 * workers:
                        yield _result(waiting.popleft(), stop)
                while waiting:
                    yield _result(waiting.popleft(), stop)
            finally:
                for future in waiting:
                    future.cancel()

    def _count_workers(self) -> int:
        if self.network.device == "cpu":
            return count_cores()
        return max(count_cores(), self._called.count)  # a batch should find its photos ready

    def _place_workers(self, workers: int) -> _Streams[Network]:
        """Return where workers find a network: one for each core, or their places at a device."""
        if self.network.device == "cpu":
            return _Streams(partial(self._open_stream, threads=1), workers)
        return self._called

    def _segment_within(
        self, budget: Budget, photo: Source, streams: _Streams[Network]
    ) -> Segmentation:
        name = photo if isinstance(photo, (str, PathLike)) else "the photo"
        with budget.holding(estimate_source(photo), name=name):
            return self._segment(photo, streams)

    def video(
        self,
        source: str | PathLike[str],
        *,
        steady: bool = True,
        flicker: bool = False,
        workers: int | None = None,
        seconds: float | None = None,
    ) -> Video:
        """Segment a video: iterate over what is returned for its frames, in order.

        Needs the extra ``video``. Decoding, the network and what is made of the masks overlap
        over the cores.

        Args:
            source: a file's path, a camera ("0", "/dev/video0") or an address ("rtsp://…").
            steady: smooth the masks over time where the picture stands still; of a network that
                gives a label map only, nothing can be smoothed.
            flicker: measure how much the masks flicker, see :mod:`deeplab.video.flicker`.
            workers: frames worked on at the same time, each on one thread; None takes the cores.
            seconds: end after so much of the video.

        Raises:
            ImageError: it cannot be read, has no pictures, is encrypted or empty.
            MissingExtraError: the extra is not installed.
        """
        from deeplab.video.play import Video
        from deeplab.video.read import VideoReader

        refuse_special(self.card, "video")
        if len(self.looks) > 1:
            raise InputError("scales, flip: a video is looked at once per frame; leave them out.")
        workers = self._count_workers() if workers is None else workers
        check_whole("workers", workers, most=MAX_WORKERS)
        streams = self._place_workers(workers)
        return Video(
            VideoReader(source),
            look=lambda frame: self._look(frame.photo, streams),
            finish=lambda _, look: self._finish(look),
            steady=steady,
            flicker=flicker,
            workers=workers,
            seconds=seconds,
        )

    def tiles(
        self,
        picture: Source | Any,
        *,
        scale: float = 1.0,
        overlap: float = OVERLAP,
        workers: int | None = None,
        memory: int | str | None = None,
        bands: Sequence[int] | None = None,
        value_range: tuple[float, float] | None = None,
        context: Context | None = None,
    ) -> Tiles:
        """Look at a picture of any size in windows, and make one mask without seams of it.

        The network sees the picture at ``scale``, through windows as large as its frame (``size``
        of the segmenter, where the file takes any). Nothing is run before the result is asked for::

            segmenter.tiles("map.tif").save(mask="map.mask.tif")  # larger than memory
            segmenter.tiles("panorama.jpg").segmentation().overlay()  # as of any photo
            for top, left, mask in segmenter.tiles("map.tif"):  # as it comes
                ...

        Args:
            picture: what :meth:`__call__` takes, or anything with a shape and a dtype that can be
                sliced: a memory map, an array of Zarr or HDF5. TIFFs, and files too large to be
                decoded whole, are read by region.
            scale: of the picture before the network sees it, 1 is as it is.
            overlap: the share of a window that its neighbours look at too, 0 to 0.9.
            workers: windows at the same time, each on one thread; None takes the cores.
            memory: that all of this may take, networks apart: bytes, or "1GB"; None takes what
                there is.
            bands: the numbers, from 1 on, of a file's channels to take for red, green and blue;
                None takes those that the file calls so.
            value_range: a file's values that are black and white; None takes what its type holds,
                and refuses 16-bit pictures that would be nearly black.
            context: "picture" gives every window the mean over the whole picture for the network's
                image pooling, which takes another pass over it; "window" leaves each its own.

        Raises:
            ImageError: the picture cannot be read.
            InputError: an argument does not fit.
            ModelError: the network gives a label map, no logits, which cannot be blended; or it
                cannot be given the picture's context.
            MissingExtraError: the picture must be read by region, and rasterio is not installed.
        """
        if workers is not None:
            check_whole("workers", workers, most=MAX_WORKERS)
        check_context(context)
        amount = parse_bytes("memory", memory) if isinstance(memory, str) else memory
        refuse_special(self.card, "tiles")
        if self.network.output != "logits":
            raise ModelError(
                "tiles: this model gives a label map, and classes cannot be blended. Use a model "
                "that gives logits, such as 'voc'."
            )
        if len(self.looks) > 1:
            raise InputError(
                "scales, flip: a picture in windows is looked at once; leave them out."
            )
        opened = open_picture(picture, bands=bands, value_range=value_range, memory=amount)
        streams = self._called
        if self.network.device == "cpu" and (workers is not None or streams.count == 1):
            streams = self._open_streams(workers or count_cores())
        run = partial(self._run_window, streams)
        nothing = np.zeros((self.spec.height, self.spec.width, 3), np.uint8)
        if self._grid is None:  # only an answer tells
            height, width, _ = run(nothing).shape
            self._grid = height, width
        halves = None
        if context == "picture":
            halves = self._open_halves(streams.count)
        return Tiles(
            opened,
            labels=self.labels,
            spec=self.spec,
            grid=self._grid,
            align_corners=self.network.align_corners,
            softmaxed=self.network.softmaxed,
            temperature=self.temperature,
            run=run,
            workers=streams.count,
            scale=scale,
            overlap=overlap,
            memory=amount,
            halves=halves,
        )

    def _open_halves(self, workers: int) -> Halves:
        """Return the network cut at its image pooling, the same for the next picture."""
        if self._halves is None or self._halves[0] != workers:
            streams = _Streams(self._open_cut, workers)

            def features(frame: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ...]:
                with streams.taking() as network:
                    return network.features(frame)

            def judge(
                frame: npt.NDArray[np.uint8], averages: tuple[npt.NDArray[np.float32], ...]
            ) -> npt.NDArray[np.float32]:
                with streams.taking() as network:
                    logits = network.judge(frame, averages).astype(np.float32, copy=False)
                self._check_logits(logits)
                return logits

            maps = features(np.zeros((self.spec.height, self.spec.width, 3), np.uint8))
            sizes = tuple((one.shape[0], one.shape[1]) for one in maps)
            self._halves = workers, Halves(features, judge, sizes)
        return self._halves[1]

    def _open_streams(self, workers: int) -> _Streams[Network]:
        """Return single-threaded streams, the same ones for the next picture."""
        if self._of_windows is None or self._of_windows.count != workers:
            self._of_windows = _Streams(partial(self._open_stream, threads=1), workers)
        return self._of_windows

    def _run_window(
        self, streams: _Streams[Network], frame: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        network = streams.take()
        try:
            logits = network(frame).astype(np.float32, copy=False)
        finally:
            streams.give_back(network)
        self._check_logits(logits)
        return logits

    def _segment(self, source: Source | Photo, streams: _Streams[Network]) -> Segmentation:
        return self._finish(self._look(source, streams))

    def _look(self, source: Source | Photo, streams: _Streams[Network]) -> _Look:
        """Run the network on a photo."""
        start = time.perf_counter()
        photo = open_photo(source, self.spec)
        places = [Geometry(photo.size, (at.height, at.width), self.spec.fit) for at in self.looks]
        frames = self._fill_frames(photo, places)
        decoded = time.perf_counter()
        network = streams.take()
        try:
            answers = [network(frame) for frame in frames]
        finally:
            streams.give_back(network)
        answered = time.perf_counter()
        is_map = network.output != "logits"
        answer = answers[0]
        look = _Look(
            photo=photo,
            geometry=places[0],
            frame=frames[0],
            logits=None if is_map else answer.astype(np.float32, copy=False),
            label_map=answer.astype(np.uint8, copy=False) if is_map else None,
            align_corners=network.align_corners,
            softmaxed=network.softmaxed,
            timings={"decode": 1e3 * (decoded - start), "network": 1e3 * (answered - decoded)},
        )
        if look.logits is not None:
            self._check_logits(look.logits)
        for answer, place, at in zip(answers[1:], places[1:], self.looks[1:], strict=True):
            values = answer.astype(np.float32, copy=False)
            self._check_logits(values)
            look.more.append(
                Scores(
                    values=values,
                    align_corners=network.align_corners,
                    region=place.region,
                    softmaxed=network.softmaxed,
                    temperature=self.temperature,
                    mirrored=at.mirrored,
                )
            )
        return look

    def _fill_frames(self, photo: Photo, places: Sequence[Geometry]) -> list[Any]:
        """Return what the network sees at each look; a photo is decoded once."""
        if isinstance(photo, BandPhoto):
            return [
                fill_frame(place, photo, self.spec, mirrored=at.mirrored)
                for place, at in zip(places, self.looks, strict=True)
            ]
        largest = max(place.content for place in places)
        image = photo.decode(at_least=None if self._exact else largest)
        frames = []
        for place, at in zip(places, self.looks, strict=True):
            seen = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if at.mirrored else image
            frames.append(place.place(seen, self.spec.padding))
        return frames

    def _finish(self, look: _Look) -> Segmentation:
        """Make the mask of what the network answered."""
        start = time.perf_counter()
        photo, geometry = look.photo, look.geometry
        if self.card.thresholds and look.logits is not None:
            return self._finish_overlapping(look, start)
        if look.logits is not None and look.more:
            first = Scores(
                values=look.logits,
                align_corners=look.align_corners,
                region=geometry.region,
                softmaxed=look.softmaxed,
                temperature=self.temperature,
            )
            mask = mean_argmax((first, *look.more), *photo.size)
        elif look.logits is not None:
            mask = argmax_bilinear(
                look.logits,
                *photo.size,
                align_corners=look.align_corners,
                region=geometry.region,
            )
        else:
            assert look.label_map is not None
            mask = _enlarge(look.label_map, geometry)
            self._check_ids(mask)
        return Segmentation(
            mask=mask,
            labels=self.labels,
            photo=photo,
            geometry=geometry,
            logits=look.logits,
            align_corners=look.align_corners,
            softmaxed=look.softmaxed,
            temperature=self.temperature,
            more_looks=tuple(look.more),
            timings={**look.timings, "mask": 1e3 * (time.perf_counter() - start)},
        )

    def _finish_overlapping(self, look: _Look, start: float) -> Segmentation:
        """Make a mask of each class."""
        assert look.logits is not None
        photo, thresholds = look.photo, self.card.thresholds
        first = Scores(
            values=look.logits, align_corners=look.align_corners, region=look.geometry.region
        )
        masks, topmost = find_masks((first, *look.more), thresholds, *photo.size)
        return OverlappingSegmentation(
            masks=masks,
            thresholds=thresholds,
            mask=topmost,
            labels=self.labels,
            photo=photo,
            geometry=look.geometry,
            logits=look.logits,
            align_corners=look.align_corners,
            more_looks=tuple(look.more),
            timings={**look.timings, "mask": 1e3 * (time.perf_counter() - start)},
        )

    def _check_logits(self, logits: npt.NDArray[np.float32]) -> None:
        if logits.ndim != 3 or logits.shape[2] != len(self.labels):
            raise ModelError(
                f"labels: the network answered numbers of shape {list(logits.shape)}, but there "
                f"are {len(self.labels)} labels; the file does not do what it says."
            )
        if np.isnan(logits).any():
            raise ModelError(
                "the network answered what is no number (NaN): its weights are damaged, or "
                "--normalisation is not what it was trained with."
            )

    def _check_ids(self, mask: npt.NDArray[np.uint8]) -> None:
        largest = int(mask.max())
        if largest >= len(self.labels):
            raise ModelError(
                f"labels: the network answered class {largest}, but there are only "
                f"{len(self.labels)} labels; pass labels= with the right ones. If its bytes are "
                "confidences, not classes, export it with float32 out."
            )


def default_threads() -> int:
    """Return how many threads a segmenter uses on one photo where nobody says."""
    return min(_MOST_THREADS, count_cores())


@dataclass(kw_only=True)
class _Look:
    """A photo and what the network answered, before there is a mask.

    Attributes:
        photo: the photo.
        geometry: where it lies in the frame.
        frame: what the network saw, see :data:`deeplab.runtimes.network.Frame`.
        logits: (h, w, K) float32; None where there is a label map only.
        label_map: (h, w) uint8; None where there are logits.
        align_corners: how the answer lies on the frame.
        softmaxed: ``logits`` are probabilities.
        timings: milliseconds so far.
        more: what it answered on further looks.
    """

    photo: Photo
    geometry: Geometry
    frame: Any
    logits: npt.NDArray[np.float32] | None
    label_map: npt.NDArray[np.uint8] | None
    align_corners: bool
    softmaxed: bool
    timings: dict[str, float]
    more: list[Scores] = field(default_factory=list)


class _Streams(Generic[_Opened]):
    """Networks that run one photo each, opened when first needed and used again."""

    def __init__(
        self, open_network: Callable[[], _Opened], count: int, *, first: _Opened | None = None
    ) -> None:
        self._open, self.count = open_network, count
        self._idle: queue.LifoQueue[_Opened | None] = queue.LifoQueue()
        for _ in range(count - 1):
            self._idle.put(None)
        self._idle.put(first)  # the last to come is the first to be taken

    @contextlib.contextmanager
    def taking(self) -> Iterator[_Opened]:
        """Give an idle network, and make it available again."""
        network = self.take()
        try:
            yield network
        finally:
            self.give_back(network)

    def take(self) -> _Opened:
        """Return an idle network; wait for one where all are at work."""
        network = self._idle.get()
        if network is None:
            try:
                network = self._open()
            except BaseException:
                self._idle.put(None)
                raise
        return network

    def give_back(self, network: _Opened) -> None:
        """Make a network available again."""
        self._idle.put(network)


def _line_up(network: Network) -> _Streams[Network]:
    """Return the places in line for a network on a device, which works for one thread at a time.

    They are one, or as many as a batch has, where the device likes batches.
    """
    if not likes_batches(network):
        return _Streams(lambda: network, 1)
    gathered = GatheredNetwork(network)
    return _Streams(lambda: gathered, LARGEST_BATCH)


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _result(future: Future[Segmentation], stop: bool) -> Segmentation | DeepLabError:
    try:
        return future.result()
    except DeepLabError as error:
        if stop:
            raise
        return error


def _enlarge(label_map: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Return the photo's part of a label map at the photo's size, by nearest neighbour."""
    picks = []
    for axis in range(2):
        size, span = geometry.photo[axis], geometry.content[axis]
        centres = (np.arange(size) + 0.5) * (span / size)
        scale = label_map.shape[axis] / geometry.frame[axis]
        picks.append(np.minimum((centres * scale).astype(np.intp), label_map.shape[axis] - 1))
    mask: npt.NDArray[np.uint8] = label_map[:, picks[1]][picks[0]]
    return mask


def _name_classes(card: NetworkCard, known: LabelSet | None, path: Path) -> LabelSet:
    """Return the classes: the caller's or the file's, which the card has, else the zoo's."""
    labels = card.labels or known
    if labels is None:
        count = card.num_classes
        classes = f"its {count} classes" if count else "its classes"
        raise ModelError(
            f"{path}: the model does not say what {classes} are called. Pass labels=: a file with "
            f"one name per line, or one of {', '.join(LABEL_SETS)}."
        )
    check_count(path.name, labels, card.num_classes)
    return labels
