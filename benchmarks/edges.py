"""Alpha of cut-outs against known alpha: composites of hand-drawn outlines, at 1280 × 720 pixels.

    python benchmarks/edges.py [-m voc] [--pictures FOLDER]

Objects of the shipped photos are cut out along an outline that was drawn by hand *inside* them,
with short hairs and a slightly blurred border, and laid over other pictures; so their alpha is
known exactly, and so are their colours. The network sees the composite, as it sees any photo.
Scored in the 24 pixels around the true border: the sum of absolute differences (SAD, in thousands
of pixels), the error of the gradient (Gaussian derivatives, sigma 1.4, sum of squares, in
thousands), and the mean error of the shown colour over a new background (0..255). Before: the mask
blurred over 1/200 of the shorter side, as every version until this one.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from deeplab import Segmenter
from deeplab.photo.edges import soft_cutout
from deeplab.photo.results import Segmentation

Float = npt.NDArray[np.float64]

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
HEIGHT, WIDTH = 720, 1280
FINE = 4  # times finer, the alpha is drawn

# Corners of the outline, in pixels of the photo.
DOG = (
    (489, 24), (497, 40), (503, 62), (515, 66), (533, 66), (540, 47), (551, 25), (561, 47),
    (559, 75), (551, 84), (556, 110), (551, 140), (540, 165), (530, 185), (519, 206), (508, 220),
    (498, 240), (492, 262), (480, 288), (470, 305), (468, 340), (470, 380), (474, 420), (482, 437),
    (502, 444), (482, 445), (466, 435), (456, 410), (447, 370), (441, 335), (434, 310), (431, 340),
    (429, 370), (421, 385), (419, 405), (430, 424), (415, 424), (408, 395), (408, 380), (414, 340),
    (411, 301), (395, 294), (350, 290), (300, 291), (265, 295), (248, 301), (243, 320), (224, 343),
    (204, 360), (189, 385), (187, 405), (199, 435), (226, 445), (206, 446), (186, 435), (173, 415),
    (162, 398), (160, 382), (176, 360), (178, 345), (150, 345), (135, 347), (110, 374), (80, 380),
    (50, 369), (33, 350), (36, 337), (46, 330), (62, 338), (85, 347), (106, 341), (120, 315),
    (127, 290), (131, 260), (141, 237), (152, 218), (176, 198), (201, 181), (240, 165), (280, 155),
    (320, 149), (360, 145), (400, 139), (435, 133), (452, 124), (473, 109), (482, 95), (482, 70),
    (482, 45),
)  # fmt: skip
ASTRONAUT = (
    (225, 26), (255, 26), (278, 43), (291, 70), (293, 100), (282, 119), (270, 127), (266, 145),
    (259, 163), (274, 183), (291, 216), (296, 243), (308, 253), (332, 269), (346, 302), (353, 343),
    (338, 357), (308, 368), (287, 393), (276, 420), (274, 460), (278, 530), (34, 530), (32, 480),
    (29, 440), (31, 380), (37, 320), (49, 278), (68, 249), (102, 232), (121, 221), (119, 200),
    (129, 178), (152, 160), (182, 159), (184, 132), (168, 115), (160, 95), (162, 66), (178, 44),
    (202, 30),
)  # fmt: skip
SCENES = (  # object, outline, its scale and place (x, y), and a part of a photo to lie behind it
    ("dog", DOG, 1.45, (150, 30), ("photographer", (340, 140, 512, 330))),
    ("dog", DOG, 1.3, (240, 60), ("coffee", (400, 0, 600, 113))),
    ("astronaut", ASTRONAUT, 1.38, (320, 18), ("dog", (230, 330, 400, 425))),
    ("astronaut", ASTRONAUT, 1.38, (250, 18), ("coffee", (400, 0, 600, 113))),
    ("astronaut", ASTRONAUT, 1.1, (380, 160), ("photographer", (340, 140, 512, 330))),
)


def main() -> None:
    """Print the errors of both ways on every composite, and the time of the new one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="voc")
    parser.add_argument("--pictures", type=Path, help="write what was looked at")
    arguments = parser.parse_args()
    segmenter = Segmenter(arguments.model)
    print(f"{'scene':24} {'SAD':>13} {'gradient':>15} {'colour':>13} {'ms':>7}")
    totals = np.zeros((2, 3))
    times = []
    for number, scene in enumerate(SCENES):
        alpha, colours, composite = compose(*scene, seed=number)
        result = segmenter(composite)
        seen = (result.mask == result.labels.index(_object(scene[0]))).astype(np.uint8)
        plain = before(seen)
        soft, ms = after(result, composite, _object(scene[0]))
        times.append(ms)
        old = errors(alpha, colours, plain, composite.astype(float))
        new = errors(alpha, colours, soft[..., 3] / 255, soft[..., :3].astype(float))
        totals += [old, new]
        print(_line(f"{scene[0]} over {scene[4][0]}", old, new, ms))
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            _draw(arguments.pictures / f"{number}.png", alpha, plain, soft, composite)
    print(_line("all", totals[0], totals[1], statistics.median(times)))
    print("of before: " + ", ".join(f"{ratio:.0%}" for ratio in totals[1] / totals[0]))


def _object(photo: str) -> str:
    return "person" if photo == "astronaut" else photo


def _line(name: str, old: Sequence[float], new: Sequence[float], ms: float) -> str:
    pairs = [f"{a:6.2f} →{b:6.2f}" for a, b in zip(old, new, strict=True)]
    return f"{name:24} {'  '.join(pairs)} {ms:7.1f}"


def compose(
    name: str,
    outline: Sequence[tuple[int, int]],
    scale: float,
    place: tuple[int, int],
    behind: tuple[str, tuple[int, int, int, int]],
    *,
    seed: int,
) -> tuple[Float, Float, npt.NDArray[np.uint8]]:
    """Return true alpha (H, W) 0..1, true colours (H, W, 3), and the composite, uint8."""
    photo = Image.open(PHOTOS / f"{name}.jpg").convert("RGB")
    size = round(photo.width * scale), round(photo.height * scale)
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    canvas.paste(photo.resize(size, Image.Resampling.BICUBIC), place)
    points = [(scale * x + place[0], scale * y + place[1]) for x, y in outline]
    alpha = _draw_alpha(points, np.random.default_rng(seed))
    colours = _spread(np.asarray(canvas, float), alpha)
    ground = Image.open(PHOTOS / f"{behind[0]}.jpg").convert("RGB").crop(behind[1])
    ground = ground.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    weight = alpha[..., None]
    composite = weight * colours + (1 - weight) * np.asarray(ground, float)
    return alpha, colours, np.round(composite).astype(np.uint8)


def _draw_alpha(points: Sequence[tuple[float, float]], rng: np.random.Generator) -> Float:
    """Draw a smooth outline with hairs, finer than the picture, and average."""
    curve = _smooth(np.array(points))
    fine = Image.new("L", (WIDTH * FINE, HEIGHT * FINE))
    draw = ImageDraw.Draw(fine)
    draw.polygon([tuple(FINE * p) for p in curve], fill=255)
    along = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
    for point, normal in zip(curve, outward, strict=True):
        tip = point + normal * rng.uniform(1, 6) + rng.normal(0, 1.5, 2)
        draw.line([*(FINE * point), *(FINE * tip)], fill=255, width=rng.integers(2, 6))
    small = fine.filter(ImageFilter.GaussianBlur(FINE * 0.8)).reduce(FINE)
    return np.asarray(small, float) / 255


def _smooth(points: Float) -> Float:
    """Return a closed Catmull-Rom curve through the points, a point about every 3 pixels."""
    curve = []
    for index in range(len(points)):
        a, b, c, d = (points[(index + k) % len(points)] for k in (-1, 0, 1, 2))
        for t in np.arange(0, 1, 3 / max(3.0, float(np.linalg.norm(c - b)))):
            curve.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2)
                + 0.5 * (3 * b - a - 3 * c + d) * t**3
            )
    return np.array(curve)


def _spread(colours: Float, alpha: Float) -> Float:
    """Let the object's colours go on beyond its outline, so that none of the photo is left."""
    inside = (alpha > 0.98).astype(float)
    result, known = colours * inside[..., None], inside
    for sigma in (1, 2, 4, 8, 16):
        weight = _blur(inside, sigma)
        mixed = np.stack([_blur(colours[..., c] * inside, sigma) for c in range(3)], axis=-1)
        fills = (known < 0.5) & (weight > 0.02)
        result[fills] = mixed[fills] / weight[fills, None]
        known = np.where(fills, 1, known)
    return result


def _blur(plane: Float, sigma: float) -> Float:
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _filter(_filter(plane, kernel / kernel.sum(), 0), kernel / kernel.sum(), 1)


def _filter(plane: Float, kernel: Float, axis: int) -> Float:
    reach = len(kernel) // 2
    padded = np.pad(plane, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    parts = (
        value * np.take(padded, np.arange(at, at + plane.shape[axis]), axis)
        for at, value in enumerate(kernel)
    )
    return sum(parts, np.zeros_like(plane))


def before(seen: npt.NDArray[np.uint8]) -> Float:
    """Return the alpha of earlier versions."""
    soft = Image.fromarray(seen * 255).filter(ImageFilter.GaussianBlur(min(seen.shape) / 400))
    return np.asarray(soft, float) / 255


def after(
    result: Segmentation, composite: npt.NDArray[np.uint8], kept: str
) -> tuple[npt.NDArray[np.uint8], float]:
    """Return (H, W, 4) RGBA of the new way, and its time in milliseconds, the best of five."""
    inside = result.mask == result.labels.index(kept)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        soft = soft_cutout(composite, inside, probability=result.kept_probability([kept]))
        best = min(best, 1e3 * (time.perf_counter() - start))
    return soft, best


def errors(alpha: Float, colours: Float, got: Float, shown: Float) -> tuple[float, float, float]:
    """Return SAD, error of the gradient and of the colour near the true border."""
    soft = (alpha > 0.02) & (alpha < 0.98)
    near = _blur(soft.astype(float), 8) > 1e-3
    sad = np.abs(alpha - got)[near].sum() / 1000
    gradient = ((_gradient(alpha) - _gradient(got)) ** 2)[near].sum() / 1000
    white = 255.0
    wanted = alpha[..., None] * colours + (1 - alpha[..., None]) * white
    made = got[..., None] * shown + (1 - got[..., None]) * white
    return float(sad), float(gradient), float(np.abs(wanted - made)[near].mean())


def _gradient(plane: Float) -> Float:
    sigma = 1.4
    x = np.arange(-5, 6)
    smooth = np.exp(-0.5 * (x / sigma) ** 2)
    smooth /= smooth.sum()
    slope = -x / sigma**2 * smooth
    dx = _filter(_filter(plane, slope, 1), smooth, 0)
    dy = _filter(_filter(plane, slope, 0), smooth, 1)
    return np.hypot(dx, dy)


def _draw(
    path: Path,
    alpha: Float,
    plain: Float,
    soft: npt.NDArray[np.uint8],
    composite: npt.NDArray[np.uint8],
) -> None:
    rows = [composite]
    for plane in (alpha, plain, soft[..., 3] / 255):
        rows.append(np.repeat(np.round(255 * plane).astype(np.uint8)[..., None], 3, axis=2))
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    main()
