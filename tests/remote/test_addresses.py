from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from deeplab.remote.address import Address, find_address, place


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a b/ü.jpg", "gs://b/x", "https://host/p/x.jpg?v=1", "memory://a", "az://c/d"],
)
def test_an_address_is_told_from_a_path_and_stays_as_it_was_written(text):
    address = find_address(text)
    assert isinstance(address, Address)
    assert str(address) == text
    assert str(find_address(Path(text))) == text  # Path has made one slash of two


@pytest.mark.parametrize(
    "text", ["/a/b", "a", "C:/x", "C:\\x", "a:b/c", "rtsp://camera/1", "hf://user/name", "", "::/x"]
)
def test_paths_of_this_machine_and_addresses_of_others_are_left_alone(text):
    assert find_address(text) is None


def test_what_is_no_path_is_no_address():
    assert find_address(b"s3://x/y") is None
    assert find_address(None) is None
    assert find_address(3) is None
    assert find_address(PureWindowsPath("C:/x")) is None


def test_addresses_are_joined_and_cut_as_paths_are():
    photo = Address("s3://bucket/photos/a/x.jpg")
    assert str(photo.parent / "y.png") == "s3://bucket/photos/a/y.png"
    assert str(photo.with_suffix(".mask.png")) == "s3://bucket/photos/a/x.mask.png"
    assert str(photo.relative_to(Address("s3://bucket/photos"))) == "a/x.jpg"
    assert Address("https://h/x.jpg?token=1").file_name == "x.jpg"
    assert str(place(Path("s3://bucket/out"))) == "s3://bucket/out"
    assert place(Path("out")) == Path("out")
