"""Draw the pictures of docs/ideas.md: small SVGs, each of one idea.

python benchmarks/idea_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "docs/images/ideas"
INK, SOFT, LINE = "#22313f", "#dfe6ec", "#8a99a8"
BLUE, ORANGE, GREEN = "#2471a3", "#d9822b", "#2e8b57"


class Drawing:
    """An SVG that is written a shape at a time."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, *, fill: str = "none",
            line: str = "none", round_: float = 0) -> None:  # fmt: skip
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{round_:g}" '
            f'fill="{fill}" stroke="{line}"/>'
        )

    def text(self, x: float, y: float, words: str, *, anchor: str = "middle", bold: bool = False,
             colour: str = INK) -> None:  # fmt: skip
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{words}</text>"
        )

    def path(self, steps: str, *, colour: str = LINE, width: float = 1.5) -> None:
        self.parts.append(
            f'<path d="{steps}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A straight line with a head."""
        way = np.array([to_x - x, to_y - y])
        way = way / np.hypot(*way) * 7
        side = np.array([-way[1], way[0]]) * 0.5
        end = np.array([to_x, to_y])
        corners = (end, end - way + side, end - way - side)
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
        self.path(f"M{x:g} {y:g}L{end[0] - way[0]:.1f} {end[1] - way[1]:.1f}")
        self.parts.append(f'<polygon points="{points}" fill="{LINE}"/>')

    def block(
        self, x: float, y: float, w: float, h: float, *lines: str, colour: str = BLUE
    ) -> None:
        """A box with words in it."""
        self.box(x, y, w, h, fill="white", line=colour, round_=5)
        for index, words in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 4.5 + 15 * (index - (len(lines) - 1) / 2), words)

    def grid(self, x: float, y: float, count: int, cell: float) -> None:
        side = count * cell
        self.box(x, y, side, side, fill="white", line=LINE)
        lines = "".join(
            f"M{x + i * cell:g} {y:g}v{side:g}M{x:g} {y + i * cell:g}h{side:g}"
            for i in range(1, count)
        )
        self.path(lines, colour=SOFT, width=1)

    def mask(self, x: float, y: float, inside: np.ndarray, cell: float) -> None:
        """The points that are inside, a run of a row at a time."""
        steps = []
        for row, values in enumerate(inside.astype(int)):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], values, [0]])))
            for start, stop in edges.reshape(-1, 2):
                wide = (stop - start) * cell
                corner = f"{x + start * cell:g} {y + row * cell:g}"
                steps.append(f"M{corner}h{wide:g}v{cell:g}h-{wide:g}z")
        self.parts.append(
            f'<path d="{"".join(steps)}" fill="{BLUE}" shape-rendering="crispEdges"/>'
        )

    def save(self, name: str) -> None:
        width, height = self.size
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">'
            f'<rect width="100%" height="100%" fill="#f7f9fb"/>{"".join(self.parts)}</svg>\n',
            "utf-8",
        )


def draw_atrous_rates() -> None:
    drawing, cell, count = Drawing(760, 300), 13, 15
    for index, rate in enumerate((1, 3, 6)):
        x, y = 45 + 240 * index, 50
        drawing.text(x + cell * count / 2, 32, f"rate {rate}", bold=True)
        drawing.grid(x, y, count, cell)
        for down in (-rate, 0, rate):
            for across in (-rate, 0, rate):
                centre = down == across == 0
                drawing.box(x + (7 + across) * cell, y + (7 + down) * cell, cell, cell,
                            fill=ORANGE if centre else BLUE)  # fmt: skip
        seen = 2 * rate + 1
        drawing.text(x + cell * count / 2, y + cell * count + 24, f"9 weights over {seen} × {seen}")
    drawing.save("atrous-rates.svg")


def draw_aspp() -> None:
    drawing = Drawing(760, 330)
    drawing.block(15, 135, 110, 60, "features", "stride 16", colour=INK)
    branches = ("1×1", "3×3, rate 6", "3×3, rate 12", "3×3, rate 18", "mean of the photo")
    for index, words in enumerate(branches):
        y = 18 + 62 * index
        drawing.arrow(125, 165, 198, y + 22)
        drawing.block(200, y, 165, 44, words, colour=GREEN if index == 4 else BLUE)
        drawing.arrow(365, y + 22, 433, 165)
    drawing.block(435, 135, 80, 60, "join", colour=INK)
    drawing.arrow(515, 165, 548, 165)
    drawing.block(550, 135, 80, 60, "1×1", colour=BLUE)
    drawing.arrow(630, 165, 663, 165)
    drawing.block(665, 135, 80, 60, "logits", colour=ORANGE)
    drawing.save("aspp.svg")


def draw_decoder() -> None:
    drawing = Drawing(760, 290)
    drawing.block(15, 40, 100, 60, "photo", colour=INK)
    drawing.arrow(115, 70, 153, 70)
    drawing.block(155, 40, 120, 60, "backbone", "to stride 16", colour=BLUE)
    drawing.arrow(275, 70, 313, 70)
    drawing.block(315, 40, 90, 60, "ASPP", colour=BLUE)
    drawing.arrow(405, 70, 443, 70)
    drawing.block(445, 40, 120, 60, "× 4 larger", "stride 4", colour=BLUE)
    drawing.arrow(215, 100, 215, 193)
    drawing.text(224, 150, "early features, stride 4: fine edges", anchor="start")
    drawing.block(155, 195, 120, 60, "1×1", "few channels", colour=GREEN)
    drawing.arrow(275, 225, 443, 225)
    drawing.arrow(505, 100, 505, 193)
    drawing.block(445, 195, 120, 60, "join", "two 3×3", colour=GREEN)
    drawing.arrow(565, 225, 623, 225)
    drawing.block(625, 195, 115, 60, "logits", "stride 4", colour=ORANGE)
    drawing.save("decoder.svg")


def draw_output_strides() -> None:
    drawing, side = Drawing(760, 290), 192
    for index, (stride, words) in enumerate(
        ((32, "36 points"), (16, "144 points, twice the rate"), (8, "576 points, four times"))
    ):
        x, y, count = 45 + 240 * index, 45, side // stride
        drawing.text(x + side / 2, 30, f"output stride {stride}", bold=True)
        centres = (np.arange(count) + 0.5) * stride
        down, across = np.meshgrid(centres, centres, indexing="ij")
        inside = np.hypot((down - 96) / 78, (across - 96) / 52) < 1
        drawing.grid(x, y, count, stride)
        drawing.mask(x, y, inside, stride)
        drawing.parts.append(
            f'<ellipse cx="{x + 96}" cy="{y + 96}" rx="52" ry="78" fill="none" stroke="{ORANGE}" '
            'stroke-width="2.5"/>'
        )
        drawing.text(x + side / 2, y + side + 24, words)
    drawing.save("output-strides.svg")


def draw_letterbox() -> None:
    drawing = Drawing(760, 290)

    def scene(x: float, y: float, w: float, h: float) -> None:
        drawing.box(x, y, w, h, fill="#bcd7ea")
        drawing.box(x, y + h * 0.65, w, h * 0.35, fill="#a9c59a")
        drawing.parts.append(
            f'<ellipse cx="{x + w / 2:g}" cy="{y + h * 0.55:g}" rx="{w * 0.15:g}" ry="{h * 0.3:g}" '
            f'fill="{ORANGE}"/>'
        )

    drawing.text(140, 30, "photo", bold=True)
    scene(20, 75, 240, 120)
    drawing.arrow(270, 135, 300, 135)
    drawing.text(400, 30, "letterbox", bold=True)
    drawing.box(310, 45, 180, 180, fill=LINE)
    scene(310, 90, 180, 90)
    drawing.text(400, 71, "padding, cut off after", colour="white")
    drawing.text(400, 250, "a ball stays a ball")
    drawing.text(640, 30, "stretched", bold=True)
    scene(550, 45, 180, 180)
    drawing.text(640, 250, "another shape than was learned")
    drawing.save("letterbox.svg")


def draw_exact_upsampling() -> None:
    drawing, side, points, count = Drawing(760, 300), 190, 5, 95
    down, across = np.mgrid[-2:3, -2:3]
    logits = 0.6 - 0.45 * np.hypot((down + across) / 2, (down - across) / 1.1)
    logits = np.round(logits, 1)
    place = np.clip((np.arange(count) + 0.5) * points / count - 0.5, 0, points - 1)
    low = np.minimum(place.astype(int), points - 2)
    part = place - low
    rows = logits[low] * (1 - part[:, None]) + logits[low + 1] * part[:, None]
    large = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    titles = (
        "logits at few points",
        "first the class, then larger",
        "first larger, then the class",
    )
    notes = (
        "“dog” less “background”",
        "steps as large as the stride",
        "the edge lies between points",
    )
    for index, title in enumerate(titles):
        x, y, cell = 45 + 240 * index, 45, side / points
        drawing.text(x + side / 2, 30, title, bold=True)
        drawing.grid(x, y, points, cell)
        if index == 0:
            for (row, column), value in np.ndenumerate(logits):
                drawing.text(
                    x + cell * (column + 0.5),
                    y + cell * (row + 0.5) + 4.5,
                    f"{value:+.1f}",
                    colour=BLUE if value > 0 else LINE,
                )
        else:
            found = logits > 0 if index == 1 else large > 0
            drawing.mask(x, y, found, side / len(found))
        drawing.text(x + side / 2, y + side + 26, notes[index])
    drawing.save("exact-upsampling.svg")


def main() -> None:
    draw_atrous_rates()
    draw_aspp()
    draw_decoder()
    draw_output_strides()
    draw_letterbox()
    draw_exact_upsampling()


if __name__ == "__main__":
    main()
