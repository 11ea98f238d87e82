"""Run ``.tflite`` files with OpenVINO: fast on server networks and with many streams."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path

import numpy as np

from deeplab import tflite_file
from deeplab.errors import MissingExtraError, ModelError
from deeplab.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, UInt8
from deeplab.runtimes.tflite_network import TfliteEngine, TfliteNetwork, understand


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    whole: bool = False,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> OpenVINONetwork:
    """Open a DeepLab ``.tflite``; arguments as :func:`deeplab.runtimes.litert.open`.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: not a TFLite model, not a DeepLab, or OpenVINO cannot run it.
        MissingExtraError: OpenVINO is not installed.
    """
    file = tflite_file.read(path)
    network = understand(file, whole=whole, normalisation=normalisation, assume=assume)
    return OpenVINONetwork(network, threads=threads)


class OpenVINONetwork(TfliteEngine):
    """A :class:`deeplab.runtimes.Network` in OpenVINO, in float32."""

    def __init__(self, network: TfliteNetwork, *, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError(
                "The OpenVINO runtime", package="openvino", extra="openvino"
            ) from error
        super().__init__(network)
        options = {
            # On CPUs that have it, OpenVINO would take bfloat16; masks would differ from LiteRT's.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            core = openvino.Core()
            # OpenVINO reads this format from files only, and forgets most tensors' names.
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                file = Path(folder, "network.tflite")
                file.write_bytes(network.content)
                compiled = core.compile_model(core.read_model(file), "CPU", options)
        except RuntimeError as error:
            raise ModelError(
                f"{network.file.name}: OpenVINO cannot run this model; use runtime='litert'. "
                f"({str(error).strip().splitlines()[-1]})"
            ) from error
        self._request = compiled.create_infer_request()

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        # Both arrays are copied: a shared input would have to outlive the call, and a shared
        # output would be overwritten by the next one.
        self._request.infer({0: np.ascontiguousarray(self.network.feed(frame))})
        fetched = self._request.get_output_tensor(0).data.copy()
        return self.network.answer(fetched)
