"""Run ``.tflite`` files with LiteRT: the smallest engine, and the fastest on integer networks."""

from __future__ import annotations

from os import PathLike

from deeplab.errors import MissingExtraError, ModelError
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, UInt8
from deeplab.runtimes.tflite_network import TfliteEngine, TfliteNetwork, understand
from deeplab.tflite import file as tflite_file


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    whole: bool = False,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> LiteRTNetwork:
    """Open a DeepLab ``.tflite``.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        whole: compute and return what the file gives, even where a finer answer lies inside it
            (see :mod:`deeplab.runtimes.tflite_network`).
        normalisation: (mean, std) in units of 0..255, whatever the file says.
        assume: whose normalisation to take where the file says nothing.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: not a TFLite model, not a DeepLab, or LiteRT cannot run it.
    """
    file = tflite_file.read(path)
    network = understand(file, whole=whole, normalisation=normalisation, assume=assume)
    return LiteRTNetwork(network, threads=threads)


class LiteRTNetwork(TfliteEngine):
    """A :class:`deeplab.runtimes.Network` in LiteRT."""

    def __init__(self, network: TfliteNetwork, *, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError(
                "Running .tflite files", package="ai-edge-litert", extra="litert"
            ) from error
        super().__init__(network)
        try:
            self._interpreter = Interpreter(model_content=network.content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{network.file.name}: LiteRT cannot run this model: {error}"
            ) from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        if self.network.input_tensor.type == "FLOAT32":
            self.network.feed(frame, out=self._interpreter.tensor(self._input)())
        else:
            self._interpreter.set_tensor(self._input, self.network.feed(frame))
        self._interpreter.invoke()
        return self.network.answer(self._interpreter.get_tensor(self._output))
