"""Run ``.pte`` files with ExecuTorch, as a phone would: to see here what it will compute there."""

from __future__ import annotations

import contextlib
import io
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.errors import MissingExtraError, ModelError
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import (
    PhotoEngine,
    PhotoNetwork,
    TensorInfo,
    check_file,
    last_line,
    understand,
)

_TYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32"}
"""Source: ExecuTorch, runtime/core/portable_type/scalar_type.h."""


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> ExecutorchNetwork:
    """Open a ``.pte`` file: one that ``deeplab export`` wrote, or another segmentation network.

    Args:
        path: the file.
        threads: how many threads one frame may use. ExecuTorch knows one number per process, so
            this sets it for everything that runs in this one.
        normalisation: see :func:`deeplab.runtimes.photo_network.understand`.
        assume: likewise.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, no segmentation network, or ExecuTorch cannot run it.
        InputError: an argument does not fit the file, or is missing.
        MissingExtraError: ExecuTorch is not installed.
    """
    path = Path(path)
    check_file(path)
    # It tells what it finds out about the processor, and imports what warns; errors are raised.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
        except ImportError as error:
            raise MissingExtraError(
                "Running .pte files", package="executorch", extra="executorch"
            ) from error
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        try:
            program = Runtime.get().load_program(path)
            method = program.load_method("forward")
            card = program.load_method(KEY) if KEY in program.method_names else None
            text = card.execute([])[0] if card else None
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"{path.name}: ExecuTorch cannot run this file; it is damaged, no ExecuTorch "
                f"program, or made for a backend that is not built in here. ({last_line(error)})"
            ) from error
    assert method is not None
    about = method.metadata
    if about.num_inputs() != 1 or about.num_outputs() != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {about.num_inputs()} inputs and "
            f"{about.num_outputs()} outputs, expected one of each."
        )
    network = understand(
        path,
        _tensor(about.input_tensor_meta(0)),
        _tensor(about.output_tensor_meta(0)),
        card=NetworkCard.from_json(text, name=path.name) if text else None,
        normalisation=normalisation,
        assume=assume,
    )
    return ExecutorchNetwork(network, program)


class ExecutorchNetwork(PhotoEngine):
    """A :class:`deeplab.runtimes.Network` in ExecuTorch."""

    def __init__(self, network: PhotoNetwork, program: Any) -> None:
        super().__init__(network)
        self._program = program  # holds the file's bytes, from which the method computes
        self._method = program.load_method("forward")

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        import torch

        image = torch.from_numpy(np.require(self.network.feed(frame), requirements="W"))
        (fetched,) = self._method.execute([image])
        return self.network.answer(fetched.numpy())


def _tensor(info: Any) -> TensorInfo:
    return TensorInfo(shape=tuple(info.sizes()), type=_TYPES.get(info.dtype(), "another type"))
