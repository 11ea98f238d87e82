"""Walking a ``.tflite`` graph from the photo to the classes, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deeplab.errors import WeightsError
from deeplab.tflite.file import Operator, TfliteFile

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_PRECISIONS = ("QUANTIZE", "DEQUANTIZE")

KNOWN = (
    "Known here are .tflite files of DeepLab v3 and v3+ on MobileNetV2 and MobileNet EdgeTPU (any "
    "depth multiplier, float or integer) and MobileNetV2 classifiers. For another network import "
    "its checkpoint."
)
"""The end of every refusal."""


@dataclass
class Walk:
    """What was found on the way: our layers in order, and the operator that is each."""

    file: TfliteFile
    layers: dict[str, Operator] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    _sums: dict[str, Operator] = field(default_factory=dict)
    _sources: dict[int, int] = field(default_factory=dict)
    _readers: dict[int, list[Operator]] = field(default_factory=dict)
    _writers: dict[int, Operator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operator in self.file.operators:
            if not operator.inputs or not operator.outputs:
                raise WeightsError(f"a {operator.name} reads or writes nothing: damaged file.")
            self._writers[operator.outputs[0]] = operator
            if operator.name in _PRECISIONS:
                self._sources[operator.outputs[0]] = self.source(operator.inputs[0])
                continue
            for tensor in operator.inputs:
                self._readers.setdefault(self.source(tensor), []).append(operator)

    def source(self, tensor: int) -> int:
        """Return the tensor that this one is, but for its precision."""
        return self._sources.get(tensor, tensor)

    def readers(self, tensor: int) -> list[Operator]:
        """Return the operators that read a tensor, at whatever precision."""
        return self._readers.get(self.source(tensor), [])

    def weights(self, operator: Operator) -> int:
        """Return the tensor of a convolution's weights."""
        if len(operator.inputs) < 2 or operator.inputs[1] < 0:
            raise WeightsError(f"a {operator.name} has no weights: damaged file.")
        return self.source(operator.inputs[1])

    def take(self, layer: str, operator: Operator) -> int:
        """Note an operator as a layer and return the tensor it writes."""
        self.layers[layer] = operator
        return operator.outputs[0]

    def take_sum(self, layer: str, first: Operator, second: Operator) -> None:
        """Note a layer that two convolutions compute, of its first inputs and of its others."""
        self._sums[layer] = first
        self.layers[layer] = second

    def operators(self) -> list[Operator]:
        """Return all operators that are noted."""
        return [*self.layers.values(), *self._sums.values()]

    def writer(self, tensor: int) -> Operator | None:
        """Return the operator that computes a tensor."""
        return self._writers.get(self.source(tensor))

    def earliest(self, tensor: int, kind: str) -> Operator | None:
        """Return the first of a kind that reads a tensor; others of it are low-level features."""
        return min(
            (op for op in self.readers(tensor) if op.name == kind),
            key=lambda op: (self.has_activation(op) and kind == "CONV_2D", op.index),
            default=None,
        )

    def has_activation(self, operator: Operator) -> bool:
        """Whether a convolution ends in ReLU or ReLU6."""
        return bool(operator.options.get("fused_activation_function"))

    def numbers(self, tensor: int) -> list[float]:
        """Return a few stored numbers; nothing where they are computed."""
        constant = self.file.tensors[self.source(tensor)]
        return constant.dequantize().ravel()[:8].tolist() if constant.is_constant else []

    def only(self, tensor: int, *kinds: str, what: str) -> Operator:
        """Return the one reader of a tensor, which must be of one of these kinds."""
        readers = self.readers(tensor)
        if len(readers) != 1 or readers[0].name not in kinds:
            raise WeightsError(
                f"{what}: expected {' or '.join(kinds)}, got "
                f"{' and '.join(reader.name for reader in readers) or 'nothing'}. {KNOWN}"
            )
        return readers[0]

    def shape(self, operator: Operator) -> tuple[int, ...]:
        """Return the shape of a convolution's weights: OHWI, or 1HWC where it is depthwise."""
        tensor = self.file.tensors[self.weights(operator)]
        if not tensor.is_constant or len(tensor.shape) != 4:
            raise WeightsError(f"the weights of a {operator.name} are not in the file. {KNOWN}")
        return tensor.shape

    def kernel(self, layer: str) -> npt.NDArray[np.float32]:
        """Return the weights of a layer: OHWI, or 1HWC where it is depthwise."""
        parts = [op for op in (self._sums.get(layer), self.layers[layer]) if op is not None]
        for part in parts:
            self.shape(part)
        kernels = [self.file.tensors[self.weights(part)].dequantize() for part in parts]
        return np.concatenate(kernels, axis=3) if len(kernels) > 1 else kernels[0]

    def bias(self, layer: str) -> npt.NDArray[np.float32]:
        """Return the biases of a layer, zeros where it has none."""
        own = self._bias(self.layers[layer])
        return own + self._bias(self._sums[layer]) if layer in self._sums else own

    def _bias(self, operator: Operator) -> npt.NDArray[np.float32]:
        number = self.source(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        if number < 0 or not self.file.tensors[number].is_constant:
            channels = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
            return np.zeros(self.shape(operator)[channels], np.float32)
        return self.file.tensors[number].dequantize().copy()


def stride_of(operator: Operator) -> int:
    """Return the stride of a convolution; rows and columns alike."""
    return int(operator.options.get("stride_h", 1))


def rate_of(operator: Operator) -> int:
    """Return the dilation of a convolution; rows and columns alike."""
    return int(operator.options.get("dilation_h_factor", 1))
