"""The process in which one contender lives: it opens the model, and does what it is asked.

Every contender has a process of its own, so that its threads, its memory and its crashes are its
own. Requests and answers are lines of JSON over stdin and stdout; ``process.py`` is the other end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeplab.errors import DeepLabError

_MODULES = {
    "litert": "ai_edge_litert.interpreter",
    "openvino": "openvino",
    "torch": "deeplab.models",
    "onnx": "onnxruntime",
    "executorch": "executorch.runtime",
}
"""What an engine imports; that is Python's time and memory, not the model's."""

Answer = dict[str, Any]


class Worker:
    """A segmenter, and what can be asked of it.

    Args:
        tell: called with (done, total) while a long request is worked on.
    """

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    def open(self, **arguments: Any) -> Answer:
        """Open the model; return how long that took and what it is fed with."""
        from deeplab.segmenter import Segmenter

        with contextlib.suppress(ImportError):  # the segmenter says what is missing
            importlib.import_module(_MODULES.get(arguments["runtime"], "numpy"))
        if arguments["size"] is not None:
            arguments["size"] = tuple(arguments["size"])
        self._arguments = arguments
        before = peak_memory(reset=True)
        start = time.perf_counter()
        self._segmenter = Segmenter(**arguments)
        init_ms = 1e3 * (time.perf_counter() - start)
        self._before = before
        spec = self._segmenter.spec
        return {
            "init_ms": init_ms,
            "size": [spec.height, spec.width],
            "fit": spec.fit,
            "labels": self._segmenter.labels.names,
            "gpu": _name_gpu() if str(arguments["device"]).startswith("cuda") else None,
            "memory": self._memory(),
        }

    def run(self, photo: str) -> Answer:
        """Segment one photo; return the milliseconds of every stage, and the memory so far."""
        return {"stages": self._segmenter(photo).timings, "memory": self._memory()}

    def evaluate(self, data: str, split: str, limit: int | None, classes: list[str]) -> Answer:
        """Score the model on a data set, as ``deeplab evaluate`` does with a file."""
        from deeplab.data import open_dataset
        from deeplab.evaluation.protocol import FilePredictor, evaluate
        from deeplab.evaluation.report import to_dict

        dataset = open_dataset(data, split=split)
        if limit is not None:
            few = slice(limit)
            dataset = dataclasses.replace(
                dataset,
                ids=dataset.ids[few],
                images=dataset.images[few],
                masks=dataset.masks[few],
            )
        chosen = dataset.labels.indices(classes) if classes else None
        done = 0

        def each(index: int, name: str, mask: Any) -> None:
            nonlocal done
            done += 1
            self._tell(done, len(dataset))

        predictor = FilePredictor(self._segmenter, Path(self._arguments["model"]).name)
        found = to_dict(evaluate(predictor, dataset, each=each), classes=chosen)
        del found["confusion"], found["ms_per_picture"]  # the times here are not interleaved
        return found

    def profile(self, photo: str, runs: int) -> Answer:
        """Time every operator of the network on a photo."""
        from deeplab.benchmark.operators import profile
        from deeplab.photo.images import Geometry, Photo

        spec = self._segmenter.spec
        opened = Photo(photo)
        geometry = Geometry(opened.size, (spec.height, spec.width), spec.fit)
        frame = geometry.place(opened.decode(), spec.padding)
        return dataclasses.asdict(
            profile(
                self._segmenter.network,
                Path(self._arguments["model"]),
                frame,
                runs=runs,
                threads=self._arguments["threads"],
                precision=self._arguments["precision"],
                tell=self._tell,
            )
        )

    def _memory(self) -> Answer | None:
        peak = peak_memory()
        if peak is None or self._before is None:
            return None
        return {"before": self._before, "peak": peak}


def _name_gpu() -> str | None:
    from deeplab.runtimes.torch import name_gpu

    return name_gpu()


def peak_memory(*, reset: bool = False) -> int | None:
    """Return the most memory that this process ever had resident, bytes; None if unknown.

    Args:
        reset: begin to look for the peak anew, where the system can do that.
    """
    try:
        if reset:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    # On Linux this would be wrong: it counts the process that started this one.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if sys.platform == "darwin" else None


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked to stop, and stops us
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native libraries print is no answer

    def say(kind: str, content: Any) -> None:
        channel.write(json.dumps({kind: content}) + "\n")
        channel.flush()

    worker = Worker(lambda done, total: say("progress", [done, total]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say("answer", getattr(worker, request["do"])(**request["with"]))
        except DeepLabError as error:
            say("error", [type(error).__name__, str(error)])


if __name__ == "__main__":
    main()
