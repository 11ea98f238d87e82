"""Do suggested photos teach more than photos by chance? A simulation on PASCAL VOC.

    python benchmarks/suggest.py --data VOC [--photos 260] [--pool 200] [--count 20] [--seeds 6]

For each seed, a pool is drawn from the training photos. ``deeplab data suggest``'s choice of it,
and as many photos by chance, are labelled with the truth; the classes get names of their own, so
that the network has to learn all of them; the last layer is fitted, and scored on ``val``: mean IoU
over cells of the features, every third, classes that no chosen photo shows counting as 0. The fit
is a coarse one, of few cells and rounds, so that it takes seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deeplab import weights
from deeplab.benchmark.machine import machine
from deeplab.data import open_dataset
from deeplab.data.masks import IGNORE
from deeplab.evaluation.suggest import choose, describe_logits
from deeplab.models import build
from deeplab.photo.images import Geometry, InputSpec
from deeplab.training import fit
from deeplab.training.initialise import classifier_rows, locate_start, start_frame

_STEP = 3
_DRAWS = 2  # by chance, of each pool
fit._CELLS, fit._CELLS_EACH = 5000, (100, 250)
fit._ROUNDS, fit._TRIAL_ROUNDS = 20, 10


class Features:
    """The features of some photos, their truth, and what a suggestion knows of them."""

    def __init__(self, model: str, data: Path, split: str, count: int) -> None:
        file = locate_start(model)
        config, state, _ = weights.load_with_report(file)
        network = build(config).eval()
        network.load_state_dict(state)
        rows = classifier_rows(state)
        assert rows is not None
        self.rows, self.classes = rows, config.num_classes
        height, width = start_frame(file)
        frame = InputSpec(height=height, width=width, mean=config.pixel_mean, std=config.pixel_std)
        dataset = open_dataset(data, split=split)
        count = min(count, len(dataset))
        chosen = np.sort(np.random.default_rng(0).choice(len(dataset), count, replace=False))
        self.cells: list[tuple[torch.Tensor, torch.Tensor]] = []
        described = []
        for index in chosen:
            sample = dataset[int(index)]
            place = Geometry(sample.label.shape[:2], (height, width), frame.fit)
            image = place.place(Image.fromarray(sample.image), frame.padding)
            batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
            with torch.no_grad():
                seen = fit.look(network, batch)[0]
            truth = fit.label_cells(sample.label, place, seen.shape[1:]).reshape(seen.shape[1:])
            truth = truth[::_STEP, ::_STEP].ravel()
            values = seen[:, ::_STEP, ::_STEP].flatten(1).T[torch.from_numpy(truth != IGNORE)]
            values = torch.cat([values, torch.ones(len(values), 1)], 1)
            self.cells.append((values, torch.from_numpy(truth[truth != IGNORE].astype(np.int64))))
            described.append(describe_logits((values @ rows.T).double().numpy()))
        self.unsure = np.array([unsure for unsure, _ in described])
        self.looks = np.array([look for _, look in described])


def score(training: Features, chosen: np.ndarray, judges: Features) -> float:
    """Return the mean IoU of a last layer that is fitted to some photos."""
    shares = np.zeros(training.classes)
    for index in chosen:
        truth = training.cells[index][1]
        shares += np.bincount(truth, minlength=training.classes) / max(1, len(truth))
    seen = fit._Cells(shares / shares.sum(), photos=len(chosen), seed=0)
    for place, index in enumerate(chosen):
        values, truth = training.cells[index]
        seen.add(place, values[:, :-1], truth)
    layer = torch.nn.Conv2d(training.rows.shape[1] - 1, training.classes, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        fit._solve(layer, seen, known=(), start_rows=training.rows)
        fitted = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1).T
    values = torch.cat([values for values, _ in judges.cells])
    truth = torch.cat([truth for _, truth in judges.cells])
    return fit._miou(values @ fitted, truth, torch.full((len(truth),), 1 / len(truth)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="voc-fast")
    for option, value in (
        ("photos", 260), ("judges", 80), ("pool", 200), ("count", 20), ("seeds", 6)
    ):  # fmt: skip
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument(
        "--power", type=float, action="append", help="of uncertainty; again for more"
    )
    options = parser.parse_args()
    print(machine())
    training = Features(options.model, options.data, "train", options.photos)
    judges = Features(options.model, options.data, "val", options.judges)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        draw = np.random.default_rng(seed)
        pool = draw.choice(len(training.cells), options.pool, replace=False)
        ways = [
            ("by chance", draw.choice(pool, options.count, replace=False)) for _ in range(_DRAWS)
        ]
        for power in options.power or [0.0]:
            order = choose(
                training.unsure[pool], training.looks[pool], count=options.count, power=power
            )
            ways.append((f"suggested, power {power:g}", pool[[index for index, _ in order]]))
        for way, chosen in ways:
            found.setdefault(way, []).append(100 * score(training, chosen, judges))
        print(seed, {way: round(scores[-1], 1) for way, scores in found.items()}, flush=True)
    for way, scores in found.items():
        print(
            f"{way}: mean {np.mean(scores):.1f}, from {min(scores):.1f} to {max(scores):.1f} mIoU"
        )


if __name__ == "__main__":
    main()
