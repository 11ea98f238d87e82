"""The reference fixtures: finding them, running a network on them, comparing.

``python tests/parity.py`` writes the table of all fixtures to ``docs/parity.md``.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deeplab.models import DeepLab, DeepLabConfig, build, predict

# Float32 noise is below 4e-5 of the scale; the smallest real mistake moves logits by 1e-3.
TOLERANCE = 2e-4
MARGIN = 1e-3
MARGIN_OF_PROBABILITIES = 1e-4


def reference_folder() -> Path | None:
    """Return the folder of reference files, where there is one."""
    named = os.environ.get("DEEPLAB_REFERENCE")
    return Path(named).resolve() if named else None


def fixture_names(*kinds: str) -> list[str]:
    """Return the fixtures of these kinds that are there now."""
    folder = reference_folder()
    if folder is None:
        return []
    specs = sorted((folder / "parity").glob("*/spec.json"))
    return [path.parent.name for path in specs if json.loads(path.read_text())["kind"] in kinds]


@functools.cache
def seeds() -> ModuleType:
    """Return the fixtures' own generator of weights and images, checked against itself."""
    folder = reference_folder()
    assert folder is not None
    spec = importlib.util.spec_from_file_location(
        "seeded_weights", folder / "parity" / "seeded_weights.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._digest() == module.SELF_CHECK, "seeded_weights.py does not reproduce itself"
    return module


@dataclass(frozen=True)
class Fixture:
    """One folder: what was run, on what, and what came out."""

    name: str
    spec: dict[str, Any]
    outputs: dict[str, NDArray[Any]]

    @property
    def framework(self) -> str:
        source = self.spec["source"]
        text = str(source["framework"] if isinstance(source, dict) else source).split(",")[0]
        return re.sub(r"^github:(\S+) commit (\w{7}).*", r"\1 @ \2", text)

    def image(self) -> torch.Tensor:
        """Return the fixture's photo, uint8 (1, 3, H, W) RGB."""
        given = self.spec["input"]
        image = seeds().seeded_image(given["height"], given["width"], given["seed"])
        return torch.from_numpy(image).permute(2, 0, 1)[None]

    def variables(self) -> dict[str, NDArray[Any]]:
        """Return the weights, in the layout of their framework."""
        layout = None if self.spec["kind"] == "tf_deeplab" else "OIHW"
        return {
            name: seeds().seeded_weight(name, shape, layout)
            for name, shape in self.spec["variables"].items()
        }


def load_fixture(name: str) -> Fixture:
    """Read a fixture."""
    folder = reference_folder()
    assert folder is not None
    spec = json.loads((folder / "parity" / name / "spec.json").read_text())
    with np.load(folder / "parity" / name / "outputs.npz") as outputs:
        return Fixture(name, spec, dict(outputs))


def build_tensorflow(fixture: Fixture) -> DeepLab:
    """Build the network of a ``tf_deeplab`` fixture from its flags and seeded weights."""
    from deeplab.weights.tensorflow import from_tensorflow
    from deeplab.weights.tensorflow_config import config_from_flags

    model = fixture.spec["model"]
    config = config_from_flags(
        {**fixture.spec["all_flags"], "model_variant": model["model_variant"]},
        num_classes=model["num_classes"],
        output_stride=model["output_stride"],
        atrous_rates=model["atrous_rates"],
    )
    return _with_weights(config, from_tensorflow(fixture.variables(), config))


def build_pytorch(fixture: Fixture) -> DeepLab:
    """Build the network of a ``pytorch`` fixture from the names and shapes of its state dict."""
    from deeplab.weights import from_state_dict

    state = {name: torch.from_numpy(value) for name, value in fixture.variables().items()}
    # A state dict does not say at which stride its network was made; the call in "source" does.
    stride = re.search(r"output_stride=(\d+)", fixture.spec["source"])
    config, weights, _ = from_state_dict(state, output_stride=int(stride[1]) if stride else None)
    return _with_weights(config, weights)


def _with_weights(config: DeepLabConfig, state: dict[str, torch.Tensor]) -> DeepLab:
    return build(config, state).eval()


@dataclass(frozen=True)
class Comparison:
    """How far a network is from a fixture, each part relative to its own scale."""

    logits_error: float
    labels_compared: int
    labels_equal: int

    @property
    def agrees(self) -> bool:
        return self.logits_error <= TOLERANCE and self.labels_equal == self.labels_compared


BUILDERS: dict[str, Callable[[Fixture], DeepLab]] = {
    "tf_deeplab": build_tensorflow,
    "pytorch": build_pytorch,
}


def compare(fixture: Fixture) -> tuple[DeepLabConfig, Comparison]:
    """Run a fixture: logits before the last upsampling, and labels at the size of the photo."""
    model = BUILDERS[fixture.spec["kind"]](fixture)
    image, expected = fixture.image(), fixture.outputs
    scales = fixture.spec.get("multi_scale")
    with torch.inference_mode():
        if scales:
            scores = predict(
                model, image, scales=scales["eval_scales"], flip=scales["add_flipped_images"]
            )
            error, _ = _error(scores, expected, "mean_probs")
            margin = MARGIN_OF_PROBABILITIES
        else:
            logits = model(image)
            error, scale = _error(logits, expected, "output" if "output" in expected else "logits")
            scores = model.upsample(logits, image.shape[2:])
            margin = MARGIN * scale
    labels, step = find_array(expected, "labels")
    scores = scores[:, :, ::step, ::step]
    best = scores.topk(2, 1).values
    margins, margin_step = (best[:, 0] - best[:, 1]).numpy(), step
    if any(re.fullmatch(r"margin(_every\d+)?", name) for name in expected):
        margins, margin_step = find_array(expected, "margin")
    assert margin_step == step, f"labels every {step}, margins every {margin_step}"
    certain = margins.astype(np.float32) > margin
    equal = (scores.argmax(1).numpy() == labels)[certain]
    return model.config, Comparison(error, int(certain.sum()), int(equal.sum()))


def find_array(outputs: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[Any], int]:
    """Return an array, and the step at which it was stored: large ones say so in their name."""
    for key, value in outputs.items():
        if match := re.fullmatch(rf"{name}(?:_every(\d+))?", key):
            return value, int(match[1] or 1)
    raise AssertionError(f"The fixture has no '{name}', only {', '.join(outputs)}")


def _error(got: torch.Tensor, outputs: dict[str, NDArray[Any]], name: str) -> tuple[float, float]:
    want, step = find_array(outputs, name)
    values = got[:, :, ::step, ::step].permute(0, 2, 3, 1).numpy()
    assert values.shape == want.shape, f"{values.shape} instead of {want.shape}"
    scale = float(np.abs(want).max())
    return float(np.abs(values - want).max()) / scale, scale


def write_table(path: Path) -> bool:
    """Write the table of every fixture, and return whether all agree."""
    rows, good = [], True
    for name in fixture_names(*BUILDERS):
        fixture = load_fixture(name)
        config, result = compare(fixture)
        good &= result.agrees
        rows.append(
            f"| {name} | {config.version} | {config.backbone} | {fixture.framework} "
            f"| {result.logits_error:.1e} | {result.labels_equal} of {result.labels_compared} |"
        )
        print(rows[-1], flush=True)
    path.write_text(TABLE_HEAD + "\n".join(rows) + "\n")
    return good


TABLE_HEAD = """# Parity with the originals

Each row is one run of somebody else's implementation, with weights that are a function of the
variables' names, reproduced here from those same weights. The error is the largest difference of
the logits before the last upsampling, relative to the largest logit (probabilities for `msflip`);
2e-4 is allowed, float32 noise is up to 4e-5. Labels are compared at the photo's size, wherever the
two best classes differ by more than 1e-3 of the scale.

Generated by `python tests/parity.py`.

| fixture | version | backbone | framework | error | equal labels |
|---|---|---|---|---|---|
"""


if __name__ == "__main__":
    raise SystemExit(not write_table(Path(__file__).parents[1] / "docs" / "parity.md"))
