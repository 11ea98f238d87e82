"""Devices: one vocabulary, words with the cure, and nobody is trusted who answers otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from deeplab import Segmenter, runtimes, zoo
from deeplab.cli import run as run_command
from deeplab.errors import InputError, ModelError
from deeplab.photo.images import InputSpec
from deeplab.runtimes import device_list, litert, onnx, openvino
from deeplab.runtimes.device_check import compare, real_frame
from deeplab.runtimes.devices import CPU, Device, Place, cannot_run, check_device, read_device
from deeplab.runtimes.tflite_network import TfliteNetwork
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import cut
from deeplab.tflite.smallest import SMALLEST_SHAPE, make_smallest
from tiny_tflite import tiny_network

GPU = Device("gpu")
SOFTWARE_GPU = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""A Vulkan that computes on the CPU and comes with Chromium; a GPU's stead for tests."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(argmax=True))
    return path


class Fake:
    """A network that answers what it is told to."""

    def __init__(self, answer: np.ndarray, output: str = "logits") -> None:
        self.spec, self.output, self._answer = InputSpec(height=9, width=9), output, answer

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        assert frame.shape == (9, 9, 3)
        return self._answer


# --- words ------------------------------------------------------------------------------------


def test_the_vocabulary() -> None:
    assert read_device(None) == read_device("cpu") == CPU
    assert read_device("cuda:1") == Device("cuda", 1)
    assert str(read_device("cuda:0")) == "cuda"
    assert [str(read_device(word)) for word in ("npu", "gpu:2")] == ["npu", "gpu:2"]
    for wrong in ("GPU", "tpu", "cuda:", "cuda:-1", "cuda:1:2", "npu:1", "", "cuda:99999"):
        with pytest.raises(InputError, match=f"got '{wrong}', expected one of auto, cpu, gpu"):
            read_device(wrong)


def test_what_is_not_here_is_refused_with_the_cure() -> None:
    def place(device: str, *, here: bool | None, cure: str = "a cure") -> Place:
        return Place(device=read_device(device), name="", here=here, cure=cure)

    cpu = place("cpu", here=True)
    check_device("engine", CPU, [cpu])
    check_device("engine", read_device("auto"), [cpu])
    with pytest.raises(InputError, match=r"'engine' does not compute on 'mps'; here it takes cpu"):
        check_device("engine", read_device("mps"), [cpu])
    with pytest.raises(InputError, match=r"finds no 'cuda' here. It needs a cure. .* it takes cpu"):
        check_device("engine", read_device("cuda"), [cpu, place("cuda", here=False)])
    two = [cpu, place("cuda", here=True), place("cuda:1", here=True)]
    check_device("engine", read_device("cuda:1"), two)
    with pytest.raises(InputError, match=r"finds 2 of that kind .* takes cpu, cuda, cuda:1"):
        check_device("engine", read_device("cuda:2"), two)
    check_device("engine", read_device("gpu:3"), [cpu, place("gpu", here=None)])  # who knows


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 8",
        "clEnqueueNDRangeKernel, error code: -5 CL_OUT_OF_RESOURCES",
        "kLiteRtStatusErrorMemoryAllocationFailure",
        "std::bad_alloc",
    ],
)
def test_too_little_memory_is_told_with_what_helps(said: str) -> None:
    words = str(cannot_run("net.onnx", "Engine", Device("cuda", 1), RuntimeError(said)))
    assert "memory of 'cuda:1' is too small" in words
    assert "smaller --size" in words
    assert said in words
    other = str(cannot_run("net.onnx", "Engine", GPU, RuntimeError("no such kernel")))
    assert "memory" not in other
    assert "leave --device out" in other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "device: got 'tpu', expected one of"),
        (["--device", "cuda"], "'litert' does not compute on 'cuda'; here it takes cpu, gpu, npu"),
        (["--device", "npu"], "It needs|What it needs: an NPU"),
        (["--device", "gpu", "--runtime", "openvino"], "'openvino' finds no 'gpu' here. It needs"),
        (["--device", "gpu", "--precision", "bfloat16", "--runtime", "openvino"], "is the CPU's"),
    ],
)
def test_commands_say_it_in_one_line(
    arguments: list[str],
    words: str,
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (9, 9)).save(photo)
    told = ["-m", str(model), "--labels", str(tmp_path / "labels.txt"), "--save", "none"]
    assert run_command(["segment", str(photo), *told, *arguments]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("deeplab:")]
    assert re.search(words, line), line


# --- the comparison ---------------------------------------------------------------------------


def test_rounding_is_taken_and_other_answers_are_not() -> None:
    right = np.random.default_rng(0).normal(size=(33, 33, 4)).astype(np.float32)
    right[..., 1] += 5  # no near ties
    found = compare("net", "gpu", Fake(right.astype(np.float16).astype(np.float32)), Fake(right))
    assert found.equal == 1
    assert 0 < found.error < 1e-3
    wrong = right.copy()
    wrong[0, 0] = np.nan
    upside_down = right[::-1].copy()
    for answer in (wrong, upside_down, right * 1.1, np.zeros_like(right), right[:-1]):
        with pytest.raises(ModelError, match="net: 'gpu' does not answer as the CPU does"):
            compare("net", "gpu", Fake(answer), Fake(right))


def test_label_maps_are_compared_too() -> None:
    right = np.random.default_rng(0).integers(0, 4, (33, 33), dtype=np.uint8)
    nearly, wrong = right.copy(), right.copy()
    nearly[0, :5] += 1
    wrong[:2] += 1
    assert compare("net", "gpu", Fake(nearly, "map"), Fake(right, "map")).equal > 0.99
    with pytest.raises(ModelError, match=r"6\.1% of a photo's cells get another class"):
        compare("net", "gpu", Fake(wrong, "map"), Fake(right, "map"))


def test_the_photo_is_a_real_one() -> None:
    frame = real_frame(InputSpec(height=65, width=97))
    assert frame.shape == (65, 97, 3)
    assert frame.std() > 20


@pytest.mark.parametrize("factor", [1, 1.3])
def test_a_device_is_used_only_when_it_answers_as_the_cpu(
    factor: float, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pretended(litert.LiteRTNetwork):
        def __init__(self, network: object, device: Device) -> None:
            super().__init__(network, threads=1)
            assert device == GPU
            opened.append(device)

        def __call__(self, frame: np.ndarray) -> np.ndarray:
            return factor * super().__call__(frame)

    opened: list[Device] = []
    monkeypatch.setattr(litert, "CompiledNetwork", Pretended)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\n")
    photo = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    plain = Segmenter(model, labels=labels, threads=1)
    assert plain.network.device == "cpu"
    if factor != 1:
        with pytest.raises(ModelError, match="'gpu' does not answer as the CPU does"):
            Segmenter(model, labels=labels, threads=1, device="gpu")
        return
    segmenter = Segmenter(model, labels=labels, threads=1, device="gpu", streams=3)
    assert segmenter.network.device == "gpu"
    for result in [segmenter(photo), *segmenter.map([photo] * 3, workers=3)]:
        assert (result.mask == plain(photo).mask).all()
    assert len(opened) == 1  # one queue, whoever waits


def test_a_model_of_the_package_computes_in_floats_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pretended(litert.LiteRTNetwork):
        def __init__(self, network: object, device: Device) -> None:
            super().__init__(network, threads=1)

    monkeypatch.setattr(litert, "CompiledNetwork", Pretended)

    def content(model: str | Path, device: str) -> bytes:
        card = Segmenter(model, threads=1, device=device).card
        assert isinstance(card, TfliteNetwork)
        return card.content

    floats = zoo.find_float16(zoo.get("voc-fast"))
    assert floats is not None
    assert content("voc-fast", "gpu") == content(floats, "cpu")
    integers = zoo.locate("voc-fast")  # a file that is named is that file
    assert content(integers, "gpu") == content("voc-fast", "cpu")


def test_auto_takes_what_is_fastest_of_what_is_right(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    class Pretended(litert.LiteRTNetwork):
        def __init__(self, network: object, device: Device) -> None:
            super().__init__(network, threads=1)
            self._kind = device.kind

        def __call__(self, frame: np.ndarray) -> np.ndarray:
            time.sleep(0.05 if self._kind in slow else 0)
            return (2 if self._kind in wrong else 1) * super().__call__(frame)

    class Slow(litert.LiteRTNetwork):
        def __call__(self, frame: np.ndarray) -> np.ndarray:
            time.sleep(0.02)
            return super().__call__(frame)

    monkeypatch.setattr(litert, "CompiledNetwork", Pretended)
    monkeypatch.setattr(litert, "LiteRTNetwork", Slow)

    def chosen() -> str:
        return runtimes.open_network(model, threads=1, device="auto").device

    slow, wrong = {"npu"}, set()
    assert chosen() == "gpu"
    slow, wrong = {"gpu"}, {"npu"}
    assert chosen() == "cpu"
    slow, wrong = set(), {"gpu"}
    assert chosen() == "npu"


# --- the engines ------------------------------------------------------------------------------


def test_a_cut_file_says_where_its_output_is(reference: Path) -> None:
    """Compiled models find inputs and outputs by the signature, interpreters do not."""
    from deeplab.zoo import locate_file

    file = tflite_file.read(locate_file("voc").path)
    logits = runtimes.describe(locate_file("voc").path).card.output_tensor
    assert logits.index not in file.outputs
    runner = Interpreter(model_content=cut(file, logits.index)).get_signature_runner()
    (details,) = runner.get_output_details().values()
    assert details["index"] == logits.index


def test_the_smallest_network_adds() -> None:
    interpreter = Interpreter(model_content=make_smallest())
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.full(SMALLEST_SHAPE, 2, np.float32))
    interpreter.invoke()
    assert (interpreter.get_tensor(1) == 4).all()


def test_onnx_runtime_is_not_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a provider does not start, ONNX Runtime takes the CPU and says so in its log."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from tiny_onnx import LABELS, SPEC, write_network

    path = write_network(tmp_path / "net.onnx", sides=(SPEC.height, SPEC.width))
    with pytest.raises(InputError, match=r"'onnx' finds no 'cuda' here. It needs an NVIDIA GPU"):
        Segmenter(path, labels=LABELS, device="cuda")
    built_in = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_in)
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(ModelError, match="ONNX Runtime cannot run this network on 'cuda:1'"),
    ):
        Segmenter(path, labels=LABELS, device="cuda:1")
    assert onnx._choose_provider(onnxruntime, Device("gpu", 1)) == (
        "CUDAExecutionProvider", {"device_id": "1"},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="not in available provider"):
        assert Segmenter(path, labels=LABELS, device="auto").network.device == "cpu"


def test_openvinos_devices_are_found_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Core:
        available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

        def get_property(self, device: str, name: str) -> str:
            return f"{device}'s {name}"

        def compile_model(self, model: object, device: str, options: dict[str, object]) -> object:
            asked.append((device, options.get("INFERENCE_PRECISION_HINT")))
            return SimpleNamespace(create_infer_request=lambda: None)

    monkeypatch.setattr(openvino, "_share_core", Core)
    places = openvino.find_places()
    assert [str(place.device) for place in places] == ["cpu", "gpu", "gpu:1", "npu"]
    assert all(place.here for place in places)
    for word in ("gpu", "gpu:1", "npu"):
        openvino._compile(
            Core(), None, threads=1, precision="float32", count_time=False, device=read_device(word)
        )
    assert asked == [("GPU", "f32"), ("GPU.1", "f32"), ("NPU", None)]


def test_the_list_names_every_engine_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["info", "--devices"]) == 0
    shown = capsys.readouterr().out
    for engine in ("litert", "onnx", "openvino", "executorch", "torch"):
        assert f" {engine} " in shown
    assert run_command(["info"]) == 2
    assert "expected either MODEL or --devices" in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_list, "_PACKAGES", {"torch": ("no-such-package",)})
    (line,) = device_list.list_devices()
    assert line.version is None
    assert line.place.cure == "pip install 'deeplab[train]'"


@pytest.mark.reference
@pytest.mark.integration
@pytest.mark.skipif(not SOFTWARE_GPU.is_file(), reason="needs Chromium's software GPU")
def test_webgpu_gives_the_cpus_mask(reference: Path, tmp_path: Path) -> None:
    photo = Path(__file__).parents[2] / "examples/photos/dog.jpg"
    masks = {}
    for device in ("cpu", "gpu"):
        done = subprocess.run(
            [
                sys.executable, "-m", "deeplab", "segment", str(photo), "-m", "starter",
                "--device", device, "-o", str(tmp_path / device), "--save", "mask",
            ],
            env={**os.environ, "VK_ICD_FILENAMES": str(SOFTWARE_GPU),
                 "DEEPLAB_MODEL_PATH": str(reference / "models")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        masks[device] = np.asarray(Image.open(tmp_path / device / "dog.mask.png"))
    assert masks["cpu"].any()
    assert (masks["cpu"] == masks["gpu"]).mean() >= 0.999
