"""All that needs a GPU, in one script, in less than eight minutes, without a network.

    make gpu                                   # or, without an installation:
    PYTHONPATH=src python3 benchmarks/gpu.py [--out build/gpu] [--minutes 7.5] [--only NAMES]
    PYTHONPATH=src python3 benchmarks/gpu.py --device cpu --tiny      # does the script itself run?

Each part runs in a process of its own with its share of the time, and writes every number as soon
as it has it; what comes too late, or for which a package is missing, is said and passed over. It
leaves ``gpu.md`` (tables), ``gpu.jsonl`` (every row) and a log per part. It needs torch, numpy,
Pillow, safetensors and flatbuffers; "resume" also what `deeplab train` does (isal, rich), "litert"
ai-edge-litert and a Vulkan loader.

    machine     what it is; bfloat16 matrix products and copies: what the rest is measured against
    tests       the tests marked "gpu", where pytest is there
    answers     networks and gradients on the GPU against the CPU; pairs opened by ``device="cuda"``
    resume      a training that is cut in two ends as one that is not
    nccl        one process of NCCL: DDP and synchronised batch norm against neither
    inference   ms a photo of release pairs, float32 and bfloat16; photos one by one against `map`
    litert      files of the package through LiteRT's WebGPU: the CPU's mask? ms a photo
    mnv2 r50 r101 x65  training, images/s: a plain loop, then ours in bfloat16 and channels-last,
                the share of the time that the GPU waits for pictures, then compiled, which takes
                a minute to begin; TFLOP/s sustained
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parents[1]
Say = Callable[..., None]

NETWORKS = {
    "mnv2": {"version": "v3+", "backbone": "mobilenet_v2", "output_stride": 16},
    "r50": {"version": "v3", "backbone": "resnet_v1_50", "output_stride": 16},
    "r101": {"version": "v3+", "backbone": "resnet_v1_101", "output_stride": 16},
    "x65": {"version": "v3+", "backbone": "xception_65", "output_stride": 16},
}

SECONDS = {
    "machine": 25, "tests": 60, "answers": 60, "resume": 45, "nccl": 40, "inference": 60,
    "litert": 45, "mnv2": 100, "r50": 120, "r101": 60, "x65": 60,
}  # fmt: skip
"""What a part may take; they usually need half."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where and how large.

    Attributes:
        device: "cuda" or "cpu".
        tiny: sizes that a CPU does in seconds, to try the script.
        until: ``time.time()`` at which no new measurement begins.
    """

    device: str
    tiny: bool
    until: float

    @property
    def crop(self) -> int:
        return 33 if self.tiny else 513

    @property
    def batch(self) -> int:
        return 2 if self.tiny else 16

    @property
    def rounds(self) -> int:
        return 1 if self.tiny else 5

    def config(self, name: str) -> Any:
        from deeplab.models import DeepLabConfig

        config = DeepLabConfig.from_dict({**NETWORKS[name], "num_classes": 21})
        if self.tiny:  # the real one is looked at, and a small one takes its place
            config = DeepLabConfig(
                version=config.version,
                backbone="mobilenet_v2",
                depth_multiplier=0.1,
                head_channels=8,
                num_classes=21,
            )
        return config

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def time_ms(work: Callable[[], Any], plan: Plan, *, repeat: int = 10) -> float:
    """Return the median milliseconds of one call, the device's queue emptied around it."""
    times = []
    for _ in range(plan.rounds):
        count = 1 if plan.tiny else repeat
        plan.wait()
        start = time.perf_counter()
        for _ in range(count):
            work()
        plan.wait()
        times.append(1e3 * (time.perf_counter() - start) / count)
    return statistics.median(times)


# --- the parts --------------------------------------------------------------------------------


def measure_machine(plan: Plan, say: Say) -> None:
    on_gpu = plan.device == "cuda"
    say(
        what="machine",
        gpu=torch.cuda.get_device_name() if on_gpu else "none",
        memory_gb=round(torch.cuda.get_device_properties(0).total_memory / 2**30) if on_gpu else 0,
        torch=torch.__version__,
        python=platform.python_version(),
        cores=os.cpu_count(),
    )
    side = 256 if plan.tiny else 8192
    left, right = (torch.randn(side, side, device=plan.device).bfloat16() for _ in range(2))
    for _ in range(3):
        left @ right
    ms = time_ms(lambda: left @ right, plan)
    say(what="bfloat16 product", side=side, tflops=2 * side**3 / ms / 1e9)
    block = torch.zeros((1 << 20) if plan.tiny else (1 << 31), dtype=torch.uint8)
    block = block.to(plan.device)
    target = torch.empty_like(block)
    ms = time_ms(lambda: target.copy_(block), plan)
    say(what="copy, read and written", tb_per_s=2 * block.numel() / ms / 1e9)


def run_tests(plan: Plan, say: Say) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         "tests/test_gpu.py"],
        cwd=HERE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    say(what="tests marked gpu", summary=(done.stdout.strip().splitlines() or ["no output"])[-1])


def _example(plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, 3, plan.crop, plan.crop)).float()
    label = torch.randint(0, 21, (2, plan.crop, plan.crop))
    return image, label


def compare_answers(plan: Plan, say: Say) -> None:
    from deeplab.labels import VOC
    from deeplab.models import build
    from deeplab.photo.images import InputSpec
    from deeplab.runtimes import open_network
    from deeplab.weights import release

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    image, label = _example(plan)
    for name in NETWORKS:
        torch.manual_seed(0)
        network = build(plan.config(name)).train()
        found = {}
        for device in ("cpu", plan.device):
            one = copy.deepcopy(network).to(device)
            one.freeze_batch_norm()
            for module in one.modules():
                if isinstance(module, nn.Dropout):  # each device draws its own
                    module.p = 0.0
            logits = one(image.to(device))
            full = nn.functional.interpolate(logits, size=label.shape[1:], mode="bilinear")
            nn.functional.cross_entropy(full, label.to(device)).backward()
            weights = [p.grad.cpu() for p in one.parameters() if p.grad is not None]
            found[device] = (logits.detach().cpu(), torch.cat([w.ravel() for w in weights]))
        errors = [
            float((ours - cpus).norm() / cpus.norm())
            for ours, cpus in zip(found[plan.device], found["cpu"], strict=True)
        ]
        say(what=f"{name} against the CPU", logits=errors[0], gradients=errors[1])
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder, f"{name}.safetensors")
            spec = InputSpec(height=plan.crop, width=plan.crop)
            config = plan.config(name)
            state = build(config).state_dict()
            release.save(pair, config, state, labels=VOC, input_spec=spec)
            opened = open_network(pair, threads=4, device=plan.device)
            say(what=f"{name} as a pair", device=opened.device, answers="as the CPU")


def cut_in_two(plan: Plan, say: Say) -> None:
    from deeplab.training.experiment import run_experiment
    from deeplab.training.settings import Settings
    from training import draw_dataset

    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def train(folder: Path, data: Path, steps: int) -> torch.Tensor:
        settings = Settings.from_dict(
            {
                "name": "cut",
                "model": {"backbone": "mobilenet_v2", "depth_multiplier": 0.25},
                "data": {"path": str(data), "crop_size": [plan.crop] * 2, "train": "train",
                         "val": "train", "workers": 0, "check": False},
                "schedule": {"base": 0.01, "decay_steps": 8},
                "run": {"steps": steps, "batch_size": 4, "device": plan.device, "save_every": 1,
                        "validate_every": 0},
            }
        )  # fmt: skip
        run_experiment(settings, folder, tell=print)
        saved = torch.load(folder / "last.pt", map_location="cpu", weights_only=False)
        return torch.cat([w.ravel().float() for w in _tensors(saved["network"])])

    with tempfile.TemporaryDirectory() as place:
        data = Path(place, "data")
        draw_dataset(data, pairs=4, height=96, width=128)
        whole, again = (train(Path(place, name), data, 8) for name in ("whole", "again"))
        train(Path(place, "cut"), data, 4)
        resumed = train(Path(place, "cut"), data, 8)
    say(
        what="a training cut in two",
        equal_bits=bool((whole == resumed).all()),
        difference=float((whole - resumed).norm() / whole.norm()),
        between_two_alike=float((whole - again).norm() / whole.norm()),
    )


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    for value in state.values():
        if isinstance(value, torch.Tensor):
            yield value


def join_nccl(plan: Plan, say: Say) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from deeplab.models import build
    from deeplab.training.normalisation import synchronise

    on_gpu = plan.device == "cuda"
    image, label = _example(plan)
    image, label = image.to(plan.device), label.to(plan.device)
    torch.manual_seed(0)
    network = build(plan.config("r50")).to(plan.device).train()

    def gradient(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(0)  # of dropout
        logits = model(image)
        full = nn.functional.interpolate(logits, size=label.shape[1:], mode="bilinear")
        nn.functional.cross_entropy(full, label).backward()
        return torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])

    alone = gradient(copy.deepcopy(network))
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1
        )
        if on_gpu:
            synchronise(network)
        count = sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
        together = gradient(DistributedDataParallel(network))
        dist.destroy_process_group()
    difference = float((alone - together).norm() / alone.norm())
    say(what="DDP, one process", synchronised=count, gradients_differ=difference)


def time_inference(plan: Plan, say: Say) -> None:
    from deeplab.models import build

    for name in NETWORKS:
        network = build(plan.config(name)).to(plan.device).eval()
        network.to(memory_format=torch.channels_last)
        for batch in (1, 2 if plan.tiny else 16):
            image = torch.zeros(batch, 3, plan.crop, plan.crop, device=plan.device)
            image = image.contiguous(memory_format=torch.channels_last)
            row: dict[str, float] = {}
            for dtype in (torch.float32, torch.bfloat16):
                run = partial(copy.deepcopy(network).to(dtype), image.to(dtype))
                with torch.inference_mode():
                    run()
                    ms = time_ms(run, plan)
                row[f"{str(dtype).removeprefix('torch.')}_ms"] = ms / batch
            say(what=f"{name}, {plan.crop}×{plan.crop}, batch {batch}, a photo", **row)
            if time.time() > plan.until:
                return
    time_folder(plan, say)


def time_folder(plan: Plan, say: Say) -> None:
    """Time photos one after the other against ``map``, which runs what waits as one batch."""
    from deeplab import Segmenter
    from deeplab.labels import LABEL_SETS
    from deeplab.models import build
    from deeplab.photo.images import InputSpec
    from deeplab.weights import release

    config = plan.config("r50")
    photos = [HERE / "examples" / "photos" / "dog.jpg"] * (4 if plan.tiny else 200)
    with tempfile.TemporaryDirectory() as folder:
        spec, labels = InputSpec(height=plan.crop, width=plan.crop), LABEL_SETS["voc"]
        pair = Path(folder) / "r50"
        release.save(pair, config, build(config).state_dict(), labels=labels, input_spec=spec)
        segmenter = Segmenter(pair.with_suffix(".json"), device=plan.device)
        segmenter(photos[0])
        start = time.perf_counter()
        alone = [segmenter(photo).mask for photo in photos]
        between = time.perf_counter()
        together = [one.mask for one in segmenter.map(photos)]
        end = time.perf_counter()
    same = min(float((a == b).mean()) for a, b in zip(alone, together, strict=True))
    say(
        what=f"r50, {len(photos)} photos from files to masks",
        one_by_one_ms=(between - start) / len(photos) * 1e3,
        map_ms=(end - between) / len(photos) * 1e3,
        same_pixels=same,
    )


def try_litert(plan: Plan, say: Say) -> None:
    import numpy as np

    from deeplab import Segmenter, zoo
    from deeplab.errors import DeepLabError

    photo = HERE / "examples" / "photos" / "dog.jpg"
    wanted = ("cpu", "gpu") if plan.device == "cuda" else ("cpu",)
    for name in ("voc-fast", "voc"):
        masks = {}
        for file in (zoo.locate(name), *(HERE / "src/deeplab/zoo/graphics").glob(f"{name}.f*")):
            for device in wanted:
                start = time.perf_counter()
                try:
                    segmenter = Segmenter(file, device=device, threads=4)
                    masks[device] = segmenter(photo).mask
                except DeepLabError as error:
                    say(what=f"{file.name} on {device}", refused=str(error))
                    continue
                ready = time.perf_counter() - start
                row = {"opened_s": ready, "ms": time_ms(partial(segmenter, photo), plan)}
                row["as_the_cpu"] = float(np.mean(masks[device] == masks["cpu"]))
                say(what=f"{file.name} on {device}", answered_by=segmenter.network.device, **row)


# --- training ---------------------------------------------------------------------------------


OURS = "ours, bfloat16"


def train_network(name: str, plan: Plan, say: Say) -> None:
    from deeplab.models.count import count_network

    config = plan.config(name)
    macs = count_network(config, (plan.crop, plan.crop)).macs
    base = None
    ways: dict[str, Callable[[], Callable[[], Any]]] = {
        "plain loop": lambda: plain_step(config, plan),
        OURS: lambda: our_step(config, plan, compile=False)[0],
        f"{OURS}, compiled": lambda: our_step(config, plan, compile=not plan.tiny)[0],
    }
    for way, make in ways.items():
        if time.time() > plan.until:
            say(what=f"{name}, {way}", passed_over="no time was left")
            continue
        start = time.perf_counter()
        step = make()
        for _ in range(1 if plan.tiny else 4):
            step()
        plan.wait()
        ready = time.perf_counter() - start
        ms = time_ms(step, plan, repeat=4)
        speed = plan.batch / ms * 1e3
        base = base or speed
        say(
            what=f"{name}, {way}", images_per_s=speed, faster=speed / base,
            tflops=6 * macs * speed / 1e12, first_steps_s=ready,
        )  # fmt: skip
        del step
        if plan.device == "cuda":
            torch.cuda.empty_cache()
        if way == OURS and time.time() < plan.until:
            wait_for_pictures(name, plan, say)


def plain_step(config: Any, plan: Plan) -> Callable[[], None]:
    """Return a step as tutorials write it: float32, channels first, the loss always asked for."""
    from deeplab.models import build

    network = build(config).to(plan.device).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5)
    image = torch.rand(plan.batch, 3, plan.crop, plan.crop).mul(255)
    label = torch.randint(0, 21, (plan.batch, plan.crop, plan.crop))

    def step() -> None:
        x, y = image.to(plan.device), label.to(plan.device)
        optimiser.zero_grad()
        full = nn.functional.interpolate(network(x), size=y.shape[1:], mode="bilinear")
        loss = nn.functional.cross_entropy(full, y, ignore_index=255)
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def our_step(config: Any, plan: Plan, *, compile: bool, batches: Any = None) -> tuple[Any, Any]:
    """Return a step made of the parts of ``deeplab.training``'s loop, and its list of waits."""
    from deeplab.data.loader import Batch
    from deeplab.models import build
    from deeplab.training.optimiser import build_optimiser, set_learning_rate
    from deeplab.training.processes import Processes
    from deeplab.training.settings import Settings
    from deeplab.training.step import backward, make_step

    run = {"batch_size": plan.batch, "precision": "bfloat16", "compile": compile}
    settings = Settings.from_dict({"name": "gpu", "run": run})
    processes = Processes(0, 1, torch.device(plan.device))
    network = build(config).to(plan.device).train()
    loss = make_step(network, settings, None, processes)
    optimiser = build_optimiser(network, settings.optimiser)
    if batches is None:
        image = torch.randint(0, 256, (plan.batch, 3, plan.crop, plan.crop), dtype=torch.uint8)
        label = torch.randint(0, 21, (plan.batch, plan.crop, plan.crop), dtype=torch.uint8)
        if plan.device == "cuda":
            image, label = image.pin_memory(), label.pin_memory()
        one = Batch(image, label, ("",) * plan.batch)
        batches = iter(lambda: one, None)
    waits: list[float] = []
    number = 0

    def step() -> None:
        nonlocal number
        set_learning_rate(optimiser, 0.007)
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        backward(loss, batch, number, settings, processes)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        number += 1

    return step, waits


def wait_for_pictures(name: str, plan: Plan, say: Say) -> None:
    """Say for how much of the time a GPU that is emptied after each step waits: an upper bound."""
    from deeplab.data import open_dataset
    from deeplab.data.loader import train_loader
    from deeplab.data.transforms import TrainTransform
    from training import draw_dataset

    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(Path(folder), pairs=4 if plan.tiny else 64)
        workers = 0 if plan.tiny else max(1, (os.cpu_count() or 2) - 2)
        loader = train_loader(
            open_dataset(Path(folder), split="train"),
            TrainTransform(crop_size=(plan.crop, plan.crop)),
            batch_size=plan.batch, steps=10**6, seed=0, workers=workers,
            pin_memory=plan.device == "cuda",
        )  # fmt: skip
        step, waits = our_step(plan.config(name), plan, compile=False, batches=iter(loader))
        for _ in range(1 if plan.tiny else 4):
            step()
        plan.wait()
        waits.clear()
        start = time.perf_counter()
        for _ in range(2 if plan.tiny else 20):
            step()
            plan.wait()
        share = sum(waits) / (time.perf_counter() - start)
        say(what=f"{name}, waiting for pictures", at_most=share, workers=workers)


PARTS: dict[str, Callable[[Plan, Say], None]] = {
    "machine": measure_machine,
    "tests": run_tests,
    "answers": compare_answers,
    "resume": cut_in_two,
    "nccl": join_nccl,
    "inference": time_inference,
    "litert": try_litert,
    **{name: (lambda plan, say, name=name: train_network(name, plan, say)) for name in NETWORKS},
}


# --- the whole --------------------------------------------------------------------------------


def run_part(name: str, plan: Plan, out: Path) -> None:
    """Run one part in this process; every row goes to the file at once."""

    def say(**row: Any) -> None:
        with (out / "gpu.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": name, **row}, ensure_ascii=False) + "\n")
        print(name, row, flush=True)

    PARTS[name](plan, say)


@contextmanager
def log_of(name: str, out: Path) -> Iterator[Any]:
    with (out / f"{name}.log").open("w", encoding="utf-8") as file:
        yield file


def run_all(names: list[str], options: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Run the parts one after the other, each in its process; return what went wrong as rows."""
    end = time.time() + 60 * options.minutes
    faults = []
    paths = [str(HERE / "src"), str(HERE / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for name in names:
        seconds = min(SECONDS[name] * (10 if options.tiny else 1), end - time.time())
        if seconds < 5:
            faults.append({"part": name, "what": name, "passed_over": "no time was left"})
            continue
        until = time.time() + 0.7 * seconds
        command = [sys.executable, __file__, "--part", name, "--out", str(out),
                   "--device", options.device, "--until", str(until)]  # fmt: skip
        command += ["--tiny"] if options.tiny else []
        start = time.time()
        with log_of(name, out) as log:
            try:
                code = subprocess.run(
                    command, stdout=log, stderr=log, timeout=seconds, check=False, env=environment
                ).returncode
                last = (out / f"{name}.log").read_text("utf-8").strip().splitlines()[-1:]
                words = f"ended with {code}: {''.join(last)}" if code else ""
            except subprocess.TimeoutExpired:
                words = f"stopped after {seconds:.0f} s"
        if words:
            faults.append({"part": name, "what": name, "fault": words})
        print(f"{name}: {words or 'done'} ({time.time() - start:.0f} s)", flush=True)
    return faults


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return one table per part; numbers with three digits."""
    lines = ["# GPU", ""]
    for part in dict.fromkeys(row["part"] for row in rows):
        mine = [row for row in rows if row["part"] == part]
        keys = [*dict.fromkeys(key for row in mine for key in row if key != "part")]
        lines += [f"## {part}", "", "| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
        for row in mine:
            cells = [_cell(row.get(key, "")) for key in keys]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/")


def main() -> int:
    """Run all, write the tables, and return 1 where something did not end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "build" / "gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--only", help=f"of {','.join(PARTS)}")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.part:
        plan = Plan(device=options.device, tiny=options.tiny, until=options.until)
        run_part(options.part, plan, out)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch finds no GPU here; --device cpu --tiny tries the script itself.")
        return 2
    (out / "gpu.jsonl").write_text("", "utf-8")
    names = options.only.split(",") if options.only else list(PARTS)
    faults = run_all(names, options, out)
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text("utf-8").splitlines()]
    text = to_markdown(rows + faults)
    (out / "gpu.md").write_text(text, "utf-8")
    print(text)
    return 1 if any("fault" in row for row in faults) else 0


if __name__ == "__main__":
    sys.exit(main())
