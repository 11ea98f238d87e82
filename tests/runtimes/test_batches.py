"""Photos that wait for a device run together, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import ModelError  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.runtimes.batches import LARGEST_BATCH, GatheredNetwork  # noqa: E402
from deeplab.runtimes.network import Float32, Frame  # noqa: E402
from deeplab.runtimes.torch import TorchNetwork, describe  # noqa: E402
from deeplab.weights import release  # noqa: E402


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = DeepLabConfig(backbone="mobilenet_v2", num_classes=3, depth_multiplier=0.25)
    path = tmp_path_factory.mktemp("pair") / "tiny.safetensors"
    spec = InputSpec(height=65, width=65)
    labels = LabelSet(("ground", "cat", "dog"))
    release.save(path, config, build(config).state_dict(), labels=labels, input_spec=spec)
    return path


class Device(TorchNetwork):
    """A network on the CPU that calls itself a device, notes its batches and can be full."""

    def __init__(self, pair: Path, *, room: int = LARGEST_BATCH) -> None:
        super().__init__(describe(pair), threads=1)
        self.device, self.room = "cuda", room
        self.batches: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def run_batch(self, frames: Sequence[Frame]) -> list[Float32]:
        self.before()
        self.batches.append(len(frames))
        if len(frames) > self.room:
            raise ModelError(f"tiny: no memory for {len(frames)} frames.")
        return super().run_batch(frames)


def frames(count: int, size: int = 65) -> list[Frame]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


def answers(device: Device, shown: list[Frame]) -> list[Float32]:
    """Show a frame, and the others while the device works on it."""
    gathered, started = GatheredNetwork(device), threading.Event()
    waiting = threading.Event()

    def first_waits() -> None:
        if not started.is_set():
            started.set()
            assert waiting.wait(30)

    device.before = first_waits
    with ThreadPoolExecutor(len(shown)) as pool:
        results = [pool.submit(gathered, shown[0])]
        assert started.wait(30)
        results += [pool.submit(gathered, frame) for frame in shown[1:]]
        until = time.monotonic() + 30
        while len(gathered._line) < len(shown):
            assert time.monotonic() < until
        waiting.set()
        return [one.result() for one in results]


def test_what_waits_runs_together_and_each_gets_its_own(pair: Path) -> None:
    device, shown = Device(pair), frames(LARGEST_BATCH + 4)
    found = answers(device, shown)
    assert device.batches == [1, LARGEST_BATCH, 3]
    for answer, frame in zip(found, shown, strict=True):
        np.testing.assert_allclose(answer, device(frame), rtol=0, atol=1e-5)


def test_frames_of_two_sizes_do_not_mix(pair: Path) -> None:
    device, shown = Device(pair), frames(3) + frames(3, size=33)
    found = answers(device, shown)
    assert sorted(device.batches) == [1, 2, 3]
    assert [one.shape[0] for one in found] == [5, 5, 5, 3, 3, 3]


def test_a_device_that_is_full_gets_fewer_at_once(pair: Path) -> None:
    device, shown = Device(pair, room=3), frames(9)
    found = answers(device, shown)
    assert device.batches == [1, 8, 4, 2, 2, 2, 2]
    for answer, frame in zip(found, shown, strict=True):
        np.testing.assert_allclose(answer, device(frame), rtol=0, atol=1e-5)


def test_what_does_not_run_alone_fails_for_those_who_asked(pair: Path) -> None:
    gathered = GatheredNetwork(Device(pair, room=0))
    for frame in frames(2):
        with pytest.raises(ModelError, match="no memory for 1 frames"):
            gathered(frame)


def test_map_shows_a_device_batches(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = frames(40, size=50)
    alone = [one.mask for one in Segmenter(pair, threads=1).map(photos)]
    device = Device(pair)
    monkeypatch.setattr("deeplab.segmenter.open_network", lambda file, *, threads: device)
    together = [one.mask for one in Segmenter(pair, threads=1).map(photos)]
    assert sum(device.batches) == 40
    assert len(device.batches) < 40
    for first, second in zip(alone, together, strict=True):
        assert (first != second).mean() < 0.001
