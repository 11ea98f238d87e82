"""Networks cut at their image pooling: what is averaged comes out, an average goes in.

For pictures that are looked at in windows, see :mod:`deeplab.tiles.context`. LiteRT runs its files
so, PyTorch release pairs; the other engines run theirs whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError
from deeplab.runtimes.devices import CPU
from deeplab.tflite import file as tflite_file
from deeplab.tflite.file import DTYPES, Quantization, Tensor
from deeplab.tflite.pooling import find_poolings, split

if TYPE_CHECKING:
    from deeplab.models import DeepLab
    from deeplab.runtimes import NetworkFile
    from deeplab.runtimes.network import Float32, UInt8
    from deeplab.runtimes.tflite_network import TfliteNetwork


class CutNetwork(Protocol):
    """A network cut at its image pooling; one frame at a time."""

    def features(self, frame: UInt8) -> tuple[Float32, ...]:
        """Return what is averaged of a (height, width, 3) uint8 RGB frame, (h, w, C) float32 each.

        One map, or two where the network looks at the mirrored frame, too.
        """
        ...

    def judge(self, frame: UInt8, averages: Sequence[Float32]) -> Float32:
        """Return a frame's logits, (h, w, K) float32, given the averages, (C,) float32 each."""
        ...


def open_cut(file: NetworkFile, *, threads: int) -> CutNetwork:
    """Open a network cut at its image pooling.

    Raises:
        ModelError: it has none that can be cut, or the engine cannot.
    """
    name, card = file.path.name, file.card
    if file.runtime == "litert" and file.device == CPU:
        return _CutTflite(card, threads=threads)  # type: ignore[arg-type]
    if file.runtime == "torch":
        from deeplab.runtimes import torch

        network = torch.open(
            file.path,
            threads=threads,
            card=card,  # type: ignore[arg-type]
            device=file.device,
        )
        return CutTorch(network, network.model, name)
    raise ModelError(
        f"{name}: {file.runtime} on {file.device} runs files whole; LiteRT on the CPU and PyTorch "
        "can cut them at their image pooling."
    )


class _CutTflite:
    def __init__(self, network: TfliteNetwork, *, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        file = tflite_file.parse(network.content, name=network.file.name)
        poolings = find_poolings(file)
        if not poolings:
            raise ModelError(f"{network.file.name}: has no image pooling.")
        self._network = network
        self._averaged = [file.tensors[pooling.averaged] for pooling in poolings]
        self._pooled = [file.tensors[pooling.pooled] for pooling in poolings]
        self._before, self._after = (
            Interpreter(model_content=content, num_threads=threads)
            for content in split(file, poolings)
        )
        for interpreter in (self._before, self._after):
            if network.any_size:
                first = interpreter.get_input_details()[0]["index"]
                interpreter.resize_tensor_input(first, network.input_shape)
            interpreter.allocate_tensors()

    def features(self, frame: UInt8) -> tuple[Float32, ...]:
        """See :class:`CutNetwork`."""
        self._run(self._before, frame)
        fetched = (
            self._before.get_tensor(details["index"])[0]
            for details in self._before.get_output_details()
        )
        return tuple(
            tensor.dequantize(values)
            for tensor, values in zip(self._averaged, fetched, strict=True)
        )

    def judge(self, frame: UInt8, averages: Sequence[Float32]) -> Float32:
        """See :class:`CutNetwork`."""
        given = self._after.get_input_details()[1:]
        for details, tensor, average in zip(given, self._pooled, averages, strict=True):
            self._after.set_tensor(
                details["index"], _quantize(tensor, average).reshape(details["shape"])
            )
        self._run(self._after, frame)
        fetched = self._after.get_tensor(self._after.get_output_details()[0]["index"])
        return self._network.answer(fetched).astype(np.float32, copy=False)

    def _run(self, interpreter: Any, frame: UInt8) -> None:
        picture = interpreter.get_input_details()[0]["index"]
        interpreter.set_tensor(picture, self._network.feed(frame))
        interpreter.invoke()


class CutTorch:
    """A DeepLab of :mod:`deeplab.models`, cut at its image pooling.

    Args:
        run: runs ``model`` on a frame.
        model: what it runs.
        name: for messages.

    Raises:
        ModelError: it has no image pooling, or one that slides over the frame.
    """

    def __init__(self, run: Any, model: DeepLab, name: str) -> None:
        pooling = getattr(model.head, "pooling", None)
        if pooling is None or model.config.image_pooling_crop_size is not None:
            raise ModelError(f"{name}: has no image pooling over its whole frame.")
        self._run, self._model, self._pooling = run, model, pooling

    def features(self, frame: UInt8) -> tuple[Float32, ...]:
        """See :class:`CutNetwork`."""
        found: list[Float32] = []

        def keep(_: Any, inputs: Any) -> None:
            found.append(inputs[0][0].permute(1, 2, 0).float().cpu().numpy())

        with self._pooling.register_forward_pre_hook(keep):
            self._run(frame)
        return tuple(found)

    def judge(self, frame: UInt8, averages: Sequence[Float32]) -> Float32:
        """See :class:`CutNetwork`."""
        waiting = list(averages)

        def give(_: Any, inputs: Any) -> Any:  # the mean of one cell is that cell
            average = inputs[0].new_tensor(waiting.pop(0))[None, :, None, None]
            return (average, *inputs[1:])

        with self._pooling.register_forward_pre_hook(give):
            answer: Float32 = self._run(frame)
        return answer


def _quantize(tensor: Tensor, values: Float32) -> npt.NDArray[Any]:
    """Return values as a tensor stores them, rounded to the nearest."""
    dtype, quantization = DTYPES[tensor.type], tensor.quantization
    if quantization is None:
        return values.astype(dtype)
    assert isinstance(quantization, Quantization)
    limits = np.iinfo(dtype)
    stored = np.round(values / float(quantization.scale[0])) + int(quantization.zero_point[0])
    clipped: npt.NDArray[Any] = np.clip(stored, limits.min, limits.max).astype(dtype)
    return clipped
