"""Draws `docs/architecture.svg` from the imports of the code: `make architecture`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FILE = Path(__file__).with_name("architecture.svg")
ROWS = (("training", "app", "index_builder"), ("pacs",), ("xray",))
"""Packages from top to bottom; a row imports the rows below it."""
ROOM_WIDTH, ROOM_HEIGHT, GAP = 1.9, 0.5, 0.45
MARGIN = 0.35
ROW_GAP = 0.8
"""Inches, as all lengths here."""
FILLS = {"app": "#e7f0fa", "training": "#eaf5ea", "index_builder": "#f4efe2", "pacs": "#f6e9ef", "xray": "#ececf4"}
ROOM_FILL = "white"
INK, FAINT = "#2b3a4a", "#8296a8"


@dataclass(frozen=True)
class Room:
    """A folder or a module at the top of a package, and where it is drawn.

    Attributes:
        x, y: center, in inches.
    """

    name: str
    x: float
    y: float


Arrows = dict[str, set[str]]
"""What each room or package imports."""


def arrows(graph: grimp.ImportGraph, names: Sequence[str]) -> Arrows:
    """The imports between rooms or packages, without those that follow from others."""

    def imports(importer: str, imported: str) -> bool:
        return importer != imported and graph.direct_import_exists(
            importer=importer, imported=imported, as_packages=True
        )

    direct = {name: {other for other in names if imports(name, other)} for name in names}

    def reach(name: str) -> set[str]:
        return direct[name].union(*(reach(other) for other in direct[name]))

    return {name: direct[name] - set().union(*(reach(other) for other in direct[name])) for name in names}


def levels(found: Arrows) -> list[list[str]]:
    """Rows from top to bottom; each room imports rooms of rows below only."""

    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in found[name]), default=-1)

    depths = {name: depth(name) for name in found}
    return [[name for name in found if depths[name] == row] for row in range(max(depths.values()), -1, -1)]


def size(rows: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Width and height of a package."""
    widest = max(len(row) for row in rows)
    width = widest * ROOM_WIDTH + (widest - 1) * GAP / 2 + 2 * MARGIN
    return width, len(rows) * ROOM_HEIGHT + (len(rows) - 1) * GAP + 2 * MARGIN + 0.3


def place(rows: Sequence[Sequence[str]], left: float, top: float, width: float) -> list[Room]:
    """Rooms of a package whose upper left corner is given, centered in each row."""
    rooms = []
    for number, row in enumerate(rows):
        y = top - 0.3 - MARGIN - ROOM_HEIGHT / 2 - number * (ROOM_HEIGHT + GAP)
        start = left + width / 2 - (len(row) - 1) * (ROOM_WIDTH + GAP / 2) / 2
        rooms += [Room(name, start + column * (ROOM_WIDTH + GAP / 2), y) for column, name in enumerate(row)]
    return rooms


def box(axes: Axes, lower_left: tuple[float, float], width: float, height: float, fill: str) -> None:
    style = "round,pad=0,rounding_size=0.1"
    patch = FancyBboxPatch(lower_left, width, height, boxstyle=style, facecolor=fill, edgecolor=FAINT)
    patch.set_zorder(3 if fill == ROOM_FILL else 1)  # arrows pass between
    axes.add_patch(patch)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], width: float) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8 * width, color=FAINT, linewidth=width, zorder=2)
    )


def draw_rooms(axes: Axes, rooms: Sequence[Room], found: Arrows) -> None:
    """The rooms of one package, and an arrow to each room that one imports."""
    for room in rooms:
        for other in rooms:
            if other.name in found[room.name]:
                arrow(axes, (room.x, room.y - ROOM_HEIGHT / 2), (other.x, other.y + ROOM_HEIGHT / 2), 1)
        box(axes, (room.x - ROOM_WIDTH / 2, room.y - ROOM_HEIGHT / 2), ROOM_WIDTH, ROOM_HEIGHT, ROOM_FILL)
        axes.text(room.x, room.y, room.name.split(".")[-1], ha="center", va="center", color=INK, fontsize=10, zorder=4)


def draw(graph: grimp.ImportGraph) -> Figure:
    """All packages in their rows; every arrow points down."""
    packages = [package for row in ROWS for package in row]
    found = {package: arrows(graph, sorted(graph.find_children(package))) for package in packages}
    plans = {package: levels(found[package]) for package in packages}
    widths = [sum(size(plans[package])[0] for package in row) + GAP * (len(row) - 1) for row in ROWS]
    heights = [max(size(plans[package])[1] for package in row) for row in ROWS]
    total_width, total_height = max(widths), sum(heights) + ROW_GAP * (len(ROWS) - 1)
    figure = Figure(figsize=(total_width, total_height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, total_width), ylim=(0, total_height))
    axes.axis("off")
    placed: dict[str, tuple[float, float, float, float]] = {}
    top = total_height
    for row, width, height in zip(ROWS, widths, heights, strict=True):
        left = (total_width - width) / 2
        for package in row:
            own_width, own_height = size(plans[package])
            box(axes, (left, top - own_height), own_width, own_height, FILLS[package])
            axes.text(left + MARGIN, top - 0.3, package, color=INK, fontsize=13, fontweight="bold", va="center")
            draw_rooms(axes, place(plans[package], left, top, own_width), found[package])
            placed[package] = left, left + own_width, top, top - own_height
            left += own_width + GAP
        top -= height + ROW_GAP
    for package, imported in arrows(graph, packages).items():
        left, right, _, bottom = placed[package]
        for other in imported:
            first, last, other_top, _ = placed[other]
            start = (left + right) / 2
            arrow(axes, (start, bottom), (min(max(start, first + MARGIN), last - MARGIN), other_top), 2)
    return figure


def write(file: Path) -> None:
    """The same imports give the same bytes."""
    graph = grimp.build_graph(*(package for row in ROWS for package in row))
    with rc_context({"svg.hashsalt": "osteon", "svg.fonttype": "none", "font.family": "sans-serif"}):
        draw(graph).savefig(file, metadata={"Date": None})


def main() -> None:
    write(FILE)


if __name__ == "__main__":
    main()
