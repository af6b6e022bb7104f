"""The drawings of docs/how-it-works.md: python -m docs.site.drawings writes them anew into docs/drawings."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Callable
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "drawings"
STYLE = """
svg { font: 14px system-ui, sans-serif; }
.card { fill: #ffffff; } text { fill: #1f2430; } .quiet { fill: #5b6472; }
.box { stroke: #4a5568; stroke-width: 1.2; } .line { stroke: #4a5568; stroke-width: 1.5; fill: none; }
.tip { fill: #4a5568; } .plain { fill: #eef1f6; } .a { fill: #cfe3f7; } .b { fill: #fbdcc4; } .c { fill: #d3edd2; }
.d { fill: #e8d9f3; } .stop { stroke: #c0392b; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  .card { fill: #1e2129; } text { fill: #e6e9ef; } .quiet { fill: #a5adba; }
  .box { stroke: #97a1b1; } .line { stroke: #97a1b1; } .tip { fill: #97a1b1; } .plain { fill: #2b303b; }
  .a { fill: #1f4468; } .b { fill: #6b3f1d; } .c { fill: #265a2b; } .d { fill: #4c3260; } .stop { stroke: #e57368; }
}
"""
"""Light and dark, each on a ground of its own, so that a drawing can be read on any page."""


class Drawing:
    """Boxes, arrows and words on a card; lengths are in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, words: str = "", kind: str = "plain") -> None:
        """A box with words in its middle, one line for each."""
        self.parts.append(
            f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
        )
        lines = words.splitlines()
        for number, line in enumerate(lines):
            self.words(x + width / 2, y + height / 2 + 5 + 18 * (number - (len(lines) - 1) / 2), line, "middle")

    def words(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """One line of text, whose baseline begins, or is centred, at a place."""
        named = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(text)}</text>')

    def arrow(self, x: float, y: float, to_x: float, to_y: float, kind: str = "line") -> None:
        """A straight arrow."""
        self.parts.append(f'<line class="line {kind}" x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"/>')
        angle = math.atan2(to_y - y, to_x - x)
        ends = [(to_x - 9 * math.cos(angle + turn), to_y - 9 * math.sin(angle + turn)) for turn in (-0.4, 0.4)]
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(to_x, to_y), *ends])
        self.parts.append(f'<polygon class="tip" points="{corners}"/>')

    def cross(self, x: float, y: float, size: float) -> None:
        """An X, where something ends."""
        for direction in (-1, 1):
            self.parts.append(
                f'<line class="stop" x1="{x - size:g}" y1="{y - direction * size:g}" x2="{x + size:g}" '
                f'y2="{y + direction * size:g}"/>'
            )

    def svg(self) -> str:
        """The whole file."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        card = f'<rect class="card" width="{self.width}" height="{self.height}" rx="8"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{html.escape(self.title)}</title>'
        return "\n".join([head, f"<style>{STYLE}</style>", card, *self.parts, "</svg>", ""])


def order() -> Drawing:
    """From shards to the batches of two ranks."""
    drawing = Drawing(760, 342, "Chunks of neighbouring images are shuffled, cut into lanes, and read by ranks")
    drawing.words(20, 34, "the split: chunks of neighbouring images, as they lie in the shards")
    kinds = "abcd"
    for number in range(8):
        drawing.box(20 + 90 * number, 46, 84, 30, f"chunk {number}", kinds[number % 4])
    drawing.words(20, 116, "an epoch: the chunks in the order that (seed, epoch) draws, cut into lanes")
    shuffled = (5, 2, 7, 0, 3, 6, 1, 4)
    for place, number in enumerate(shuffled):
        lane, column = divmod(place, 2)
        drawing.box(110 + 90 * column, 128 + 36 * lane, 84, 30, f"chunk {number}", kinds[number % 4])
        if not column:
            drawing.words(20, 148 + 36 * lane, f"lane {lane}")
    drawing.words(330, 148, "a global batch takes one image of each lane in turn")
    for place in range(8):
        kind = kinds[shuffled[2 * (place % 4)] % 4]
        drawing.box(330 + 40 * place, 160, 36, 30, str(place % 4), kind)
    drawing.words(330, 222, "rank 0 of 2 reads lanes 0 and 2")
    drawing.words(330, 286, "rank 1 of 2 reads lanes 1 and 3")
    for rank in range(2):
        for place in range(4):
            lane = (rank + 2 * place) % 4
            drawing.box(330 + 40 * place, 230 + 64 * rank, 36, 30, str(lane), kinds[shuffled[2 * lane] % 4])
    return drawing


def resume() -> Drawing:
    """A run that is killed, and one that is not."""
    drawing = Drawing(760, 250, "A killed run resumes from its checkpoint and computes the same steps again")
    for row, words in enumerate(("never killed", "killed, and resumed")):
        top = 40 + 90 * row
        drawing.words(20, top + 20, words)
        for step in range(8):
            if row and step > 5:
                continue
            kind = "c" if step in (3, 7) else "plain"
            drawing.box(180 + 70 * step, top, 60, 32, f"step {step + 1}", kind)
    drawing.cross(180 + 70 * 6 + 5, 146, 12)
    drawing.words(180 + 70 * 6 + 26, 151, "killed", kind="quiet")
    drawing.arrow(180 + 70 * 3 + 30, 162, 180 + 70 * 4 + 30, 196)
    for step in range(4, 8):
        drawing.box(180 + 70 * step, 198, 60, 32, f"step {step + 1}", "c" if step == 7 else "plain")
    drawing.words(20, 218, "from the checkpoint on")
    drawing.words(180, 98, "green: a checkpoint is written; step n has the same images in each row", kind="quiet")
    return drawing


def job() -> Drawing:
    """From the login node to the ranks, and back into the queue."""
    drawing = Drawing(760, 300, "The launcher submits itself, starts an agent on each node, and has the job requeued")
    drawing.box(20, 40, 150, 56, "login node\nlauncher submits", "a")
    drawing.arrow(170, 68, 226, 68)
    drawing.box(228, 40, 130, 56, "scheduler\nqueue", "plain")
    drawing.arrow(358, 68, 414, 68)
    drawing.box(416, 20, 324, 190)
    drawing.words(430, 42, "job: the launcher, on the first node", kind="quiet")
    for node in range(2):
        left = 432 + 154 * node
        drawing.box(left, 56, 140, 34, f"agent, node {node + 1}", "b")
        for gpu in range(2):
            drawing.box(left + 72 * gpu, 122, 68, 34, f"rank {2 * node + gpu}", "c")
            drawing.arrow(left + 34 + 72 * gpu, 90, left + 34 + 72 * gpu, 120)
    drawing.words(432, 190, "time limit or lost node: exit code 99", kind="quiet")
    drawing.parts.append('<path class="line" d="M 578 210 V 262 H 293 V 108"/>')
    drawing.arrow(293, 112, 293, 98)
    drawing.words(230, 284, "requeued; the next attempt resumes in the same run directory")
    return drawing


def evaluation() -> Drawing:
    """Every image once, whatever the number of ranks, also after a kill."""
    drawing = Drawing(
        760, 266, "Ranks take whole blocks of the split; one process reads the predictions of all of them"
    )
    drawing.words(20, 34, "the split: blocks of neighbouring images, the last one smaller")
    widths = (84, 84, 84, 84, 84, 84, 84, 40)
    for number, width in enumerate(widths):
        drawing.box(20 + 90 * number, 46, width, 30, f"block {number}" if width > 40 else "7", "ab"[number % 2])
    for rank in range(2):
        drawing.words(20, 118 + 44 * rank, f"rank {rank} of 2")
        for place, number in enumerate(range(rank, 8, 2)):
            if rank and place == 2:
                drawing.cross(120 + 90 * place + 42, 113 + 44 * rank, 12)
                drawing.words(
                    120 + 90 * place + 66, 118 + 44 * rank, "killed: its next attempt continues here", kind="quiet"
                )
                break
            drawing.box(120 + 90 * place, 98 + 44 * rank, widths[number], 30, f"block {number}", "ab"[rank])
    drawing.arrow(300, 178, 300, 206)
    drawing.box(120, 208, 360, 40, "one table of predictions, then all scores", "c")
    drawing.words(492, 233, "every image once, in the same order", kind="quiet")
    return drawing


def intervals() -> Drawing:
    """Why subjects are drawn, not pictures."""
    drawing = Drawing(760, 262, "Subjects are drawn with replacement, each with all of its pictures")
    drawing.words(20, 34, "the test set: four subjects, with all of their pictures (W: the model is wrong)")
    subjects = (("RRR", "a"), ("RW", "b"), ("WWWW", "c"), ("R", "d"))

    def row(chosen: tuple[int, ...], top: float) -> None:
        left = 20.0
        for number in chosen:
            marks, kind = subjects[number]
            for mark in marks:
                drawing.box(left, top, 32, 32, mark if mark == "W" else "", kind)
                left += 36
            left += 18

    row((0, 1, 2, 3), 46)
    drawing.words(530, 68, "accuracy 5 of 10", kind="quiet")
    for number, (chosen, words) in enumerate((((1, 0, 0, 3), "accuracy 8 of 9"), ((2, 3, 2, 1), "accuracy 2 of 11"))):
        drawing.words(20, 118 + 64 * number, f"draw {number + 1} of 1,000: as many subjects, some twice")
        row(chosen, 126 + 64 * number)
        drawing.words(530, 148 + 64 * number, words, kind="quiet")
    drawing.words(20, 250, "the interval goes from the 2.5th to the 97.5th percentile of all draws")
    return drawing


def heat_map() -> Drawing:
    """How a class activation map comes from feature maps."""
    drawing = Drawing(820, 232, "Feature maps, weighted by male minus female, add up to the heat map")
    drawing.box(20, 70, 70, 70, "image", "plain")
    drawing.arrow(92, 105, 136, 105)
    drawing.box(138, 70, 110, 70, "network\nwithout head", "a")
    for number in range(3):
        top = 24 + 66 * number
        drawing.arrow(250, 105, 300, top + 26)
        drawing.box(302, top, 52, 52, f"map {number + 1}", "b")
        drawing.words(366, top + 31, f"x (male {number + 1} - female {number + 1})")
        drawing.arrow(520, top + 26, 566, 105)
    drawing.box(568, 70, 80, 70, "heat map", "c")
    drawing.arrow(650, 105, 684, 105)
    drawing.words(690, 100, "mean + constant")
    drawing.words(690, 118, "= log-odds")
    drawing.words(302, 222, "weights: those of the last layer", kind="quiet")
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "order": order,
    "resume": resume,
    "job": job,
    "evaluation": evaluation,
    "intervals": intervals,
    "heat-map": heat_map,
}


def write(directory: Path) -> None:
    """Writes all drawings into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        (directory / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
