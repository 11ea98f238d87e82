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
    "Known here are .tflite files of DeepLab v3 on MobileNetV2 and MobileNet EdgeTPU (any depth "
    "multiplier, float or integer) and MobileNetV2 classifiers. For another network import its "
    "checkpoint."
)
"""The end of every refusal."""


@dataclass
class Walk:
    """What was found on the way: our layers in order, and the operator that is each."""

    file: TfliteFile
    layers: dict[str, Operator] = field(default_factory=dict)
    _sources: dict[int, int] = field(default_factory=dict)
    _readers: dict[int, list[Operator]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operator in self.file.operators:
            if not operator.inputs or not operator.outputs:
                raise WeightsError(f"a {operator.name} reads or writes nothing: damaged file.")
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

    def kernel(self, operator: Operator) -> npt.NDArray[np.float32]:
        """Return a convolution's weights, in the layout of ``shape``."""
        self.shape(operator)
        return self.file.tensors[self.weights(operator)].dequantize()

    def bias(self, operator: Operator) -> npt.NDArray[np.float32]:
        """Return a convolution's biases, zeros where it has none."""
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
