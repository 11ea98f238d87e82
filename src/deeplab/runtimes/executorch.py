"""Run ``.pte`` files with ExecuTorch, as a phone would: to see here what it will compute there."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab.errors import MissingExtraError, ModelError
from deeplab.runtimes.answers import TensorInfo, last_line
from deeplab.runtimes.devices import CPU, Place
from deeplab.runtimes.network import CardNetwork, Float32, Frame, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import PhotoNetwork, check_file, understand

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deeplab.runtimes.network import Told

_TYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32"}
"""Source: ExecuTorch, runtime/core/portable_type/scalar_type.h."""


def describe(path: str | PathLike[str], **told: Unpack[Told]) -> PhotoNetwork:
    """Find out how a ``.pte`` file is run: one of ``deeplab export``, or of somebody else.

    Args:
        path: the file.
        **told: see :class:`~deeplab.runtimes.network.Told`.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, no segmentation network, or ExecuTorch cannot run it.
        InputError: what was told does not fit the file, or is missing.
        MissingExtraError: ExecuTorch is not installed.
    """
    path = Path(path)
    with _running(path):
        program = _load(path)
        about = program.load_method("forward").metadata
        card = program.load_method(KEY) if KEY in program.method_names else None
        text = card.execute([])[0] if card else None
    if about.num_inputs() != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {about.num_inputs()} inputs, expected one RGB "
            "picture."
        )
    return understand(
        path,
        _tensor(about.input_tensor_meta(0)),
        [
            _tensor(about.output_tensor_meta(index), name=str(index))
            for index in range(about.num_outputs())
        ],
        card=NetworkCard.from_json(text, name=path.name) if text else None,
        **told,
    )


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: PhotoNetwork | None = None,
    **told: Unpack[Told],
) -> ExecutorchNetwork:
    """Open a ``.pte`` file.

    Args:
        path: the file.
        threads: how many threads one frame may use. ExecuTorch knows one number per process, so
            this sets it for everything that runs in this one.
        card: what :func:`describe` found; None asks it.
        **told: see :func:`describe`.

    Raises:
        As :func:`describe`.
    """
    path = Path(path)
    card = card or describe(path, **told)
    with _running(path):
        from executorch.extension.pybindings import portable_lib

        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        return ExecutorchNetwork(card, _load(path))


def find_places() -> list[Place]:
    """Return the devices of ExecuTorch: what its wheel brings computes on the CPU."""
    return [Place(device=CPU, name="XNNPACK", here=True)]


@contextlib.contextmanager
def _running(path: Path) -> Iterator[None]:
    """Turn ExecuTorch's errors into ours, and keep what it tells and warns of to ourselves."""
    check_file(path)
    # It tells what it finds out about the processor, and imports what warns; errors are raised.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise MissingExtraError(
                "Running .pte files", package="executorch", extra="executorch"
            ) from error
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"{path.name}: ExecuTorch cannot run this file; it is damaged, no ExecuTorch "
                f"program, or made for a backend that is not built in here. ({last_line(error)})"
            ) from error


def _load(path: Path) -> Any:
    from executorch.runtime import Runtime

    return Runtime.get().load_program(path)


class ExecutorchNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in ExecuTorch."""

    def __init__(self, network: PhotoNetwork, program: Any) -> None:
        super().__init__(network)
        self.network = network
        self._program = program  # holds the file's bytes, from which the method computes
        self._method = program.load_method("forward")

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        import torch

        image = torch.from_numpy(np.require(self.network.feed(frame), requirements="W"))
        try:
            fetched = self._method.execute([image])[self.network.output_index]
        except RuntimeError as error:
            raise ModelError(
                f"{self.network.name}: ExecuTorch cannot run this network. ({last_line(error)})"
            ) from error
        return self.network.answer(fetched.numpy())


def _tensor(info: Any, name: str = "") -> TensorInfo:
    return TensorInfo(
        shape=tuple(info.sizes()), type=_TYPES.get(info.dtype(), "another type"), name=name
    )
