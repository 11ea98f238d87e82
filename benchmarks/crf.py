"""The fully connected CRF against pydensecrf, the algorithm's published implementation.

    python benchmarks/crf.py --model deeplabv3.tflite --photo dog.jpg

The photo is brought to 513 x 513, the probabilities are the softmax of the model's logits,
upsampled: 21 classes, ten iterations, parameters of DeepLab v2. Both run in turn, so that a busy
machine slows both. pydensecrf uses one thread; ours is timed with one thread and with all cores.

pydensecrf has no wheels. Without it the script times ours alone and says so. To build it, in an
environment of its own with a C++ compiler:

    pip install 'cython<3' setuptools wheel
    pip download --no-deps --no-binary :all: --no-build-isolation pydensecrf==1.0rc3
    tar xf pydensecrf-1.0rc3.tar.gz
    rm pydensecrf-1.0rc3/pydensecrf/densecrf.cpp pydensecrf-1.0rc3/pydensecrf/eigen.cpp
    pip install --no-build-isolation ./pydensecrf-1.0rc3
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab import crf

SIZE = 513
ITERATIONS = 10

Probabilities = npt.NDArray[np.float32]


def segment(model: Path, photo: Path) -> tuple[npt.NDArray[np.uint8], Probabilities]:
    """The photo (513, 513, 3) and its class probabilities (21, 513, 513)."""
    from ai_edge_litert.interpreter import Interpreter

    picture = Image.open(photo).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    height, width = source["shape"][1:3]
    small = picture.resize((width, height), Image.Resampling.BILINEAR)
    interpreter.set_tensor(source["index"], np.asarray(small, np.float32)[None] / 127.5 - 1)
    interpreter.invoke()
    logits = interpreter.get_tensor(target["index"])[0]
    planes = [
        Image.fromarray(logits[..., k]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        for k in range(logits.shape[-1])
    ]
    full = np.stack([np.asarray(plane) for plane in planes])
    powers = np.exp(full - full.max(axis=0))
    return np.array(picture), (powers / powers.sum(axis=0)).astype(np.float32)


def load_peer() -> Callable[[npt.NDArray[np.uint8], Probabilities], Probabilities] | None:
    try:
        import pydensecrf.densecrf as dense
        from pydensecrf.utils import unary_from_softmax
    except ImportError:
        return None

    def refine(image: npt.NDArray[np.uint8], probabilities: Probabilities) -> Probabilities:
        classes, height, width = probabilities.shape
        field = dense.DenseCRF2D(width, height, classes)
        field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
        field.addPairwiseGaussian(sxy=crf.KAZUTO.spatial_std, compat=crf.KAZUTO.spatial_weight)
        field.addPairwiseBilateral(
            sxy=crf.KAZUTO.bilateral_spatial_std,
            srgb=crf.KAZUTO.bilateral_colour_std,
            rgbim=np.ascontiguousarray(image),
            compat=crf.KAZUTO.bilateral_weight,
        )
        return np.array(field.inference(ITERATIONS), np.float32).reshape(probabilities.shape)

    return refine


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_call_seconds() -> tuple[float, float]:
    """The first call of a fresh process: with an empty compile cache, and with a filled one."""
    code = (
        "import time, numpy as np; from deeplab import crf\n"
        "i = np.zeros((8, 8, 3), np.uint8); p = np.full((2, 8, 8), .5, np.float32)\n"
        "s = time.perf_counter(); crf.refine(i, p); print(time.perf_counter() - s)"
    )
    with tempfile.TemporaryDirectory() as folder:
        times = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code],
                    env={**os.environ, "NUMBA_CACHE_DIR": folder},
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for _ in range(2)
        ]
    return times[0], times[1]


def compare(
    image: npt.NDArray[np.uint8],
    probabilities: Probabilities,
    peer: Callable[[npt.NDArray[np.uint8], Probabilities], Probabilities] | None,
    rounds: int,
) -> None:
    runs: dict[str, Callable[[], Probabilities]] = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        name = f"deeplab, {threads} thread{'s' * (threads > 1)}"
        runs[name] = partial(
            crf.refine, image, probabilities, iterations=ITERATIONS, threads=threads
        )
    if peer is not None:
        runs["pydensecrf"] = partial(peer, image, probabilities)
    results = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    for name, values in times.items():
        line = f"  {name:20} {statistics.median(values):6.3f} s"
        if peer is not None and name != "pydensecrf":
            pairs = zip(times["pydensecrf"], values, strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            differ = (results[name].argmax(0) != results["pydensecrf"].argmax(0)).sum()
            apart = np.abs(results[name] - results["pydensecrf"]).max()
            line += f"   {ratio:5.2f} x as fast as pydensecrf"
            line += f"   {differ} labels differ, probabilities at most {apart:.1e} apart"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="float .tflite giving logits")
    parser.add_argument("--photo", type=Path, required=True, nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    compiled, cached = first_call_seconds()
    print(f"first call of a process: {compiled:.1f} s compiling, {cached:.2f} s from the cache")
    peer = load_peer()
    if peer is None:
        print("pydensecrf is not installed, so there is nothing to compare with;")
        print("how to build it stands at the top of this script.")
    for photo in arguments.photo:
        image, probabilities = segment(arguments.model, photo)
        print(f"\n{photo.name}: {SIZE} x {SIZE}, {len(probabilities)} classes, {ITERATIONS} rounds")
        compare(image, probabilities, peer, arguments.rounds)


if __name__ == "__main__":
    main()
