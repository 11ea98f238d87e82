"""Write what Python computes, for the page's own code to be compared with: ``parity.test.ts``."""

from __future__ import annotations

import json
from pathlib import Path

import foreign
import numpy as np
from PIL import Image

from deeplab import Segmenter
from deeplab.errors import InputError, ModelError
from deeplab.labels import LABEL_SETS, LabelSet
from deeplab.photo.confidence import Scores
from deeplab.photo.display import display_colours
from deeplab.photo.edges import soft_cutout, working_size
from deeplab.photo.images import Geometry
from deeplab.photo.overlapping import find_masks
from deeplab.photo.upsample import argmax_bilinear, softmax_rows
from deeplab.runtimes import open_network
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite import file as tflite_file
from deeplab.video.steady import Steadier
from overlapping_tiny import write_overlapping
from tiny_tflite import tiny_network


class Cases:
    """Collects the cases in a folder: one JSON file, and the arrays beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(0)
        self.files = 0

    def keep(self, content: np.ndarray | bytes, suffix: str = "bin") -> str:
        self.files += 1
        name = f"{self.files}.{suffix}"
        data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        (self.folder / name).write_bytes(data)
        return name

    def geometry(self) -> list[dict]:
        cases = []
        for _ in range(300):
            photo = tuple(int(n) for n in self.rng.integers(1, 4000, 2))
            frame = tuple(int(n) for n in self.rng.choice([9, 64, 257, 321, 513], 2))
            content = Geometry(photo, frame).content
            cases.append({"photo": photo, "frame": frame, "fit": "letterbox", "content": content})
        # Sides that end in exactly one half are rounded to the even number.
        for height in range(1, 40):
            content = Geometry((height, 40), (20, 20)).content
            case = {"photo": (height, 40), "frame": (20, 20), "fit": "letterbox"}
            cases.append({**case, "content": content})
        cases.append({**case, "fit": "stretch", "content": (20, 20)})
        return cases

    def resize(self) -> list[dict]:
        cases = []
        shapes = {(61, 83): 33, (720, 1280): 257, (300, 200): 257, (7, 5): 65, (257, 257): 257,
                  (257, 100): 257, (100, 257): 257, (1, 900): 33}  # fmt: skip
        for photo, side in shapes.items():
            pixels = self.rng.integers(0, 256, (*photo, 3), dtype=np.uint8)
            pixels[: photo[0] // 3] = self.rng.choice([0, 255], (photo[0] // 3, photo[1], 3))
            geometry = Geometry(photo, (side, side))
            padding = (127, 3, 250)
            placed = geometry.place(Image.fromarray(pixels), padding)
            alpha = np.full((*photo, 1), 255, np.uint8)
            cases.append(
                {
                    "photo": photo,
                    "frame": (side, side),
                    "rgba": self.keep(np.concatenate([pixels, alpha], axis=2)),
                    "placed": self.keep(placed),
                    "padding": padding,
                }
            )
        return cases

    def masks(self) -> list[dict]:
        cases = []
        for grid, photo, side in [
            ((33, 33, 21), (720, 1280), 257),
            ((33, 33, 21), (513, 211), 513),
            ((9, 9, 256), (64, 64), 65),
            ((65, 65, 3), (40, 31), 513),
            ((129, 129, 19), (300, 400), 513),
        ]:
            coarse = self.rng.normal(size=(grid[0] // 4 + 2, grid[1] // 4 + 2, grid[2]))
            smooth = np.kron(coarse, np.ones((4, 4, 1)))[: grid[0], : grid[1]]
            logits = (4 * smooth + self.rng.normal(size=grid)).astype(np.float32)
            geometry = Geometry(photo, (side, side))
            for align_corners in (True, False):
                mask = argmax_bilinear(
                    logits, *photo, align_corners=align_corners, region=geometry.region
                )
                cases.append(
                    {
                        "grid": grid,
                        "logits": self.keep(logits),
                        "mask": self.keep(mask),
                        "size": photo,
                        "alignCorners": align_corners,
                        "frame": (side, side),
                        "content": geometry.content,
                        "confidence": self.keep(
                            self.confidence(logits, mask, geometry, align_corners)
                        ),
                    }
                )
        return cases

    def overlapping(self) -> list[dict]:
        """Masks of classes that overlap, some of them more than one plane of bits holds."""
        cases = []
        for grid, photo, side in [((17, 17, 3), (120, 213), 65), ((9, 12, 11), (61, 47), 97)]:
            logits = self.rng.normal(0, 2, grid).astype(np.float32)
            thresholds = tuple(self.rng.choice(np.arange(1, 20), grid[2]) / 20)
            geometry = Geometry(photo, (side, side))
            for align_corners in (True, False):
                look = Scores(values=logits, align_corners=align_corners, region=geometry.region)
                masks, topmost = find_masks([look], thresholds, *photo)
                cases.append(
                    {
                        "grid": grid,
                        "logits": self.keep(logits),
                        "thresholds": thresholds,
                        "masks": self.keep(masks.view(np.uint8)),
                        "topmost": self.keep(topmost),
                        "size": photo,
                        "alignCorners": align_corners,
                        "frame": (side, side),
                        "content": geometry.content,
                    }
                )
        return cases

    @staticmethod
    def confidence(logits, mask, geometry: Geometry, align_corners: bool) -> np.ndarray:
        """Return the probability of each pixel's class as float32."""
        out = np.empty(mask.shape, np.float32)
        for rows, values in softmax_rows(
            logits, *mask.shape, align_corners=align_corners, region=geometry.region
        ):
            out[rows] = np.take_along_axis(values, mask[rows][..., None], 2)[..., 0]
        return out

    def edges(self) -> list[dict]:
        cases = []
        for size, with_probability in [((317, 451), False), ((720, 400), True), ((37, 29), False)]:
            y, x = np.mgrid[: size[0], : size[1]] / min(size)
            wave = 0.5 + 0.05 * np.sin(9 * y)
            truth = 1 / (1 + np.exp(-90 * (0.35 - np.hypot(y - 0.5, x - wave))))[..., None]
            colours = np.array([200, 90, 40]), np.array([60, 120, 190])
            noise = self.rng.normal(0, 8, (*size, 3))
            photo = truth * colours[0] + (1 - truth) * colours[1] + noise
            photo = np.clip(photo, 0, 255).astype(np.uint8)
            inside = (np.hypot(y - 0.52, x - 0.48) < 0.36).astype(np.uint8)
            probability = None
            if with_probability:
                rows, columns = working_size(*size)
                y, x = np.mgrid[:rows, :columns] / min(rows, columns)
                rough = 1 / (1 + np.exp(-20 * (0.36 - np.hypot(y - 0.52, x - 0.48))))
                probability = (rough + self.rng.normal(0, 0.02, rough.shape)).astype(np.float32)
            got = soft_cutout(photo, inside, probability=probability)
            rgba = np.concatenate([photo, np.full((*size, 1), 255, np.uint8)], axis=2)
            cases.append(
                {
                    "size": size,
                    "rgba": self.keep(rgba),
                    "inside": self.keep(inside),
                    "probability": None if probability is None else self.keep(probability),
                    "result": self.keep(got),
                }
            )
        return cases

    def steady(self) -> list[dict]:
        """Some frames of a trembling scene, in which something moves, then the camera too."""
        grid, side, steps = (17, 19, 5), (70, 90), 10
        scene = self.rng.integers(0, 256, (14, 18, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        mean = 2 * self.rng.normal(size=grid)
        steadier = Steadier()
        cases = []
        for step in range(steps):
            turned = max(step - 5, 0)
            frame = np.roll(scene, (-2 * turned, 4 * turned), axis=(0, 1)).astype(int)
            frame += self.rng.integers(-6, 7, scene.shape)
            frame[20:50, 8 * step : 8 * step + 30] = 250 - 20 * step
            seen = np.clip(frame, 0, 255).astype(np.uint8)
            logits = (mean + 0.4 * self.rng.normal(size=grid)).astype(np.float32)
            cases.append(
                {
                    "grid": grid,
                    "size": side,
                    "logits": self.keep(logits),
                    "frame": self.keep(seen),
                    "steady": self.keep(steadier.smooth(logits, seen)),
                }
            )
        return cases

    def label_maps(self) -> list[dict]:
        cases = []
        for side, photo in [(65, (30, 47)), (33, (120, 213))]:
            name = self.keep(tiny_network(frame=side, resize=False, argmax=True), "tflite")
            labels = LabelSet(("a", "b", "c", "d"))
            pixels = self.rng.integers(0, 256, (*photo, 3), dtype=np.uint8)
            segmenter = Segmenter(self.folder / name, labels=labels, threads=1)
            seen = segmenter(pixels)
            frame = seen.geometry.place(Image.fromarray(pixels), segmenter.spec.padding)
            network = open_network(self.folder / name, threads=1)
            ids = network(frame)
            assert seen.logits is None
            cases.append(
                {
                    "map": ids.shape,
                    "ids": self.keep(ids),
                    "photo": photo,
                    "frame": (side, side),
                    "content": seen.geometry.content,
                    "mask": self.keep(seen.mask),
                }
            )
        return cases

    def models(self, files: dict[str, bytes]) -> list[dict]:
        cases = []
        for data in files.values():
            case: dict = {"file": self.keep(data, "tflite"), "error": None}
            try:
                network = understand(tflite_file.parse(data, name="model"))
            except (InputError, ModelError) as error:
                # The wording of both sides is their own; what they complain about is the same.
                case["error"] = "no model" if "not a TFLite" in str(error) else "not a DeepLab"
                for words in ("damaged", *foreign.REFUSED):
                    if words in str(error):
                        case["error"] = words
                cases.append(case)
                continue
            spec = network.spec
            everything = np.arange(256, dtype=np.uint8)
            frame = np.stack([everything] * 3, axis=1)[None]
            fed = network.feed(frame)
            tables = fed[0, :, 0] if network.channels_first else fed[0, 0].T
            if tables.dtype == np.int8:
                tables = tables.view(np.uint8)
            case["expected"] = {
                "height": spec.height,
                "width": spec.width,
                "mean": spec.mean,
                "std": spec.std,
                "fit": spec.fit,
                # The page computes an argmax itself, so it stops one step earlier.
                "fetched": network.output_tensor.index if network.output == "logits" else None,
                "output": network.output,
                "alignCorners": network.align_corners,
                "numClasses": network.num_classes,
                "channelsFirst": network.reading.channels_first,
                "oneChannel": network.reading.one_channel,
                "softmaxed": network.reading.softmaxed,
                "thresholds": network.thresholds or None,
            }
            case["labels"] = network.labels.to_dict() if network.labels else None
            case["tables"] = tables.tolist()
            cases.append(case)
        return cases


def write_cases(folder: Path, models: Path) -> None:
    """Write ``cases.json`` and its arrays into a folder."""
    cases = Cases(folder)
    files = {path.name: path.read_bytes() for path in sorted(models.glob("*.tflite"))}
    files |= {
        "tiny": tiny_network(),
        "no resize": tiny_network(resize=False),
        "half pixel": tiny_network(align_corners=False, half_pixel=True),
        "neither": tiny_network(align_corners=False),
        "argmax": tiny_network(argmax=True),
        "overlapping": write_overlapping(folder / "overlapping.tflite").read_bytes(),
        "argmax of the grid": tiny_network(resize=False, argmax=True),
        **foreign.READ,
        **foreign.REFUSED,
        "text": b"not a model at all",
        "cut off": files["deeplabv3_257_mv_gpu.tflite"][:100_000],
    }
    description = {
        "geometry": cases.geometry(),
        "resize": cases.resize(),
        "masks": cases.masks(),
        "overlapping": cases.overlapping(),
        "displayColours": [
            {"labels": labels.to_dict(), "colours": display_colours(labels)}
            for labels in (*LABEL_SETS.values(), LabelSet(tuple(map(str, range(60)))))
        ],
        "edges": cases.edges(),
        "labelMaps": cases.label_maps(),
        "steady": cases.steady(),
        "models": cases.models(files),
        "labelSets": [labels.to_dict() for labels in LABEL_SETS.values()],
    }
    (folder / "cases.json").write_text(json.dumps(description))
