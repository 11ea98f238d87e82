"""Files of PyTorch (``.pth``, ``.pt``, ``.ckpt``, …) and ``.safetensors``; nothing is run."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from isal import isal_zlib

from deeplab.errors import MissingExtraError, ModelNotFoundError, WeightsError
from deeplab.weights.archive import check_size
from deeplab.weights.pickles import Content, Storage, Unpickler, read_stream


def read_torch(path: Path) -> Content:
    """Return what a file holds that ``torch.save``, ``torch.jit.save`` or pickle wrote.

    Tensors stay in the file until they are asked for. Nothing that the file names is imported or
    called (see :mod:`deeplab.weights.pickles`).

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: it is cut off, damaged, or an archive of something else.
    """
    try:
        data = _map(path)
        if bytes(data[:4]) == b"PK\x03\x04":
            return _read_zip(path, data)
        return read_stream(data)
    except (WeightsError, ModelNotFoundError):
        raise
    except Exception as error:  # on damaged bytes an unpickler raises whatever it runs into
        raise WeightsError(
            f"{path}: cannot be read as a PyTorch file ({in_one_line(error)}); it is cut off or "
            "damaged."
        ) from error


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file.

    Raises:
        WeightsError: it is cut off or damaged.
        MissingExtraError: the package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError(
            "Reading .safetensors", package="safetensors", extra="train"
        ) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({in_one_line(error)}); it is cut off or "
            "damaged."
        ) from error


def in_one_line(error: Exception) -> str:
    """Return what an error of another package says, without its advice: its first line."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0].strip()[:200] or type(error).__name__


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"path: there is no file {path}.") from error


def check_sums(path: Path) -> None:
    """Compare everything in a zip file of ``torch.save`` with the checksums that it holds.

    ``torch.load`` does not.

    Raises:
        ValueError: something in it has changed since.
        OSError, zipfile.BadZipFile: it is no such file, or cannot be read.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = _Members(path, _map(path), archive)
        for name in archive.namelist():
            members.read(name)


class _Members:
    """The parts of a zip file where they lie, each compared with its checksum when first read."""

    def __init__(self, path: Path, data: memoryview, archive: zipfile.ZipFile) -> None:
        self._path, self._data = path, data
        self._infos = {info.filename: info for info in archive.infolist()}
        self._intact: dict[str, memoryview] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def read(self, name: str) -> memoryview:
        """Return the bytes of one part.

        Raises:
            ValueError: there is none of that name, or it has changed since it was written.
        """
        if name not in self._intact:
            if name not in self._infos:
                raise ValueError(f"{name} is missing in the archive")
            info = self._infos[name]
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                with zipfile.ZipFile(self._path) as archive:
                    return memoryview(archive.read(name))  # which compares as well
            self._intact[name] = self._locate(info)
        return self._intact[name]

    def _locate(self, info: zipfile.ZipInfo) -> memoryview:
        head = bytes(self._data[info.header_offset : info.header_offset + 30])
        start = info.header_offset + 30 + int.from_bytes(head[26:28], "little")
        start += int.from_bytes(head[28:30], "little")
        found = self._data[start : start + info.file_size]
        # Source: torch.serialization.set_crc32_options(False) leaves them out, as 0.
        if len(found) != info.file_size or (info.CRC and isal_zlib.crc32(found) != info.CRC):
            raise ValueError(f"the checksum of {info.filename} is wrong")
        return found


def _read_zip(path: Path, data: memoryview) -> Content:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = _Members(path, data, archive)
        pickles = [name for name in members if name.split("/", 1)[-1] == "data.pkl"]
        if not pickles:
            raise WeightsError(f"{path}: {_name_archive(set(members))}")
        check_size(path, sum(member.file_size for member in archive.infolist()))
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in members and bytes(members.read(order)).strip() not in (b"little", b""):
        raise WeightsError(
            f"{path}: was written on a big-endian machine; save it anew on a usual one."
        )
    text = members.read(pickles[0])

    def storage(dtype: torch.dtype, key: object, *_: object) -> Storage:
        return Storage(dtype, lambda: members.read(f"{folder}data/{key}"))

    unpickler = Unpickler(io.BytesIO(text), storage)
    value = unpickler.load()
    return Content(value, tuple(sorted(unpickler.names)))


def _name_archive(names: set[str]) -> str:
    """Return what a zip archive without a pickle is, and what to do instead."""
    last = {name.rsplit("/", 1)[-1] for name in names}
    if {"config.json", "model.weights.h5"} <= last:
        return (
            "is a network of Keras (.keras), which is not read here. Give its TensorFlow "
            "checkpoint, or export it: tf.lite.TFLiteConverter.from_keras_model(model) makes a "
            ".tflite that 'deeplab segment' runs as it is."
        )
    if any(name.endswith((".npy", ".npz")) for name in last):
        return (
            "is an archive of numpy arrays (.npz), whose names belong to no network known here. "
            "Give the PyTorch state dict or the TensorFlow checkpoint that it was made from."
        )
    if last & {"archive_format", "serialized_exported_program.json", "models"}:
        return (
            "is a program of torch.export (.pt2), not a checkpoint. Give the state dict: "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')."
        )
    shown = ", ".join(sorted(names)[:4]) or "nothing"
    return f"is a zip archive, but not one of PyTorch: it holds {shown}. Unpack it first."
