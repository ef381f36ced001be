"""Draws `docs/architecture.svg` from the imports of the code; `make architecture` runs it."""

from collections.abc import Mapping, Sequence
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

# All lengths are in inches.
FOLDER_WIDTH = 1.9
FOLDER_HEIGHT = 0.5
GAP = 0.45
"""Between the rows of folders; half of it between the folders of a row."""
MARGIN = 0.35
"""Between the edge of a package and its folders."""
TITLE_HEIGHT = 0.3
ROW_GAP = 0.8
"""Between the rows of packages."""

FILLS = {"app": "#e7f0fa", "training": "#eaf5ea", "index_builder": "#f4efe2", "pacs": "#f6e9ef", "xray": "#ececf4"}
FOLDER_FILL = "white"
TEXT_COLOR = "#2b3a4a"
LINE_COLOR = "#8296a8"


@dataclass(frozen=True)
class Folder:
    """A folder or a module at the top of a package, and where it is drawn.

    Attributes:
        x: center.
        y: center; it grows upward.
    """

    name: str
    x: float
    y: float


Arrows = dict[str, set[str]]
"""What each folder or package imports."""
Extent = tuple[float, float, float, float]
"""Left, right, top and bottom of a package."""


def find_arrows(graph: grimp.ImportGraph, names: Sequence[str]) -> Arrows:
    """Return the imports between folders or packages, without those that follow from others."""

    def imports(importer: str, imported: str) -> bool:
        return importer != imported and graph.direct_import_exists(
            importer=importer, imported=imported, as_packages=True
        )

    direct = {name: {other for other in names if imports(name, other)} for name in names}

    def reach(name: str) -> set[str]:
        return direct[name].union(*(reach(other) for other in direct[name]))

    return {name: direct[name] - set().union(*(reach(other) for other in direct[name])) for name in names}


def sort_into_rows(arrows: Arrows) -> list[list[str]]:
    """Return rows from top to bottom; each folder imports folders of lower rows only."""

    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in arrows[name]), default=-1)

    depths = {name: depth(name) for name in arrows}
    return [[name for name in arrows if depths[name] == row] for row in range(max(depths.values()), -1, -1)]


def size(rows: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Return the width and height of a package with these rows of folders."""
    widest = max(len(row) for row in rows)
    width = widest * FOLDER_WIDTH + (widest - 1) * GAP / 2 + 2 * MARGIN
    return width, len(rows) * FOLDER_HEIGHT + (len(rows) - 1) * GAP + 2 * MARGIN + TITLE_HEIGHT


def place_folders(rows: Sequence[Sequence[str]], left: float, top: float, width: float) -> list[Folder]:
    """Return the folders of a package whose upper left corner is given, centered in each row."""
    folders = []
    for number, row in enumerate(rows):
        y = top - TITLE_HEIGHT - MARGIN - FOLDER_HEIGHT / 2 - number * (FOLDER_HEIGHT + GAP)
        start = left + width / 2 - (len(row) - 1) * (FOLDER_WIDTH + GAP / 2) / 2
        folders += [Folder(name, start + column * (FOLDER_WIDTH + GAP / 2), y) for column, name in enumerate(row)]
    return folders


def draw_box(axes: Axes, lower_left: tuple[float, float], width: float, height: float, fill: str) -> None:
    """Add a rounded box to the drawing."""
    style = "round,pad=0,rounding_size=0.1"
    patch = FancyBboxPatch(lower_left, width, height, boxstyle=style, facecolor=fill, edgecolor=LINE_COLOR)
    patch.set_zorder(3 if fill == FOLDER_FILL else 1)  # arrows lie between packages and folders
    axes.add_patch(patch)


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], width: float) -> None:
    """Add an arrow to the drawing; `width` is that of its line, in points."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=8 * width, color=LINE_COLOR, linewidth=width, zorder=2
        )
    )


def draw_folders(axes: Axes, folders: Sequence[Folder], arrows: Arrows) -> None:
    """Add the folders of one package, and an arrow to each folder that another one imports."""
    for folder in folders:
        for other in folders:
            if other.name in arrows[folder.name]:
                draw_arrow(axes, (folder.x, folder.y - FOLDER_HEIGHT / 2), (other.x, other.y + FOLDER_HEIGHT / 2), 1)
        draw_box(
            axes, (folder.x - FOLDER_WIDTH / 2, folder.y - FOLDER_HEIGHT / 2), FOLDER_WIDTH, FOLDER_HEIGHT, FOLDER_FILL
        )
        axes.text(
            folder.x,
            folder.y,
            folder.name.split(".")[-1],
            ha="center",
            va="center",
            color=TEXT_COLOR,
            fontsize=10,
            zorder=4,
        )


def draw_package_arrows(axes: Axes, placed: Mapping[str, Extent], arrows: Arrows) -> None:
    """Add an arrow from each package to each that it imports."""
    for package, imported in arrows.items():
        left, right, _, bottom = placed[package]
        for other in imported:
            first, last, other_top, _ = placed[other]
            start = (left + right) / 2
            draw_arrow(axes, (start, bottom), (min(max(start, first + MARGIN), last - MARGIN), other_top), 2)


def draw(graph: grimp.ImportGraph) -> Figure:
    """Draw all packages in their rows; every arrow points down."""
    packages = [package for row in ROWS for package in row]
    arrows = {package: find_arrows(graph, sorted(graph.find_children(package))) for package in packages}
    plans = {package: sort_into_rows(arrows[package]) for package in packages}
    widths = [sum(size(plans[package])[0] for package in row) + GAP * (len(row) - 1) for row in ROWS]
    heights = [max(size(plans[package])[1] for package in row) for row in ROWS]
    total_width, total_height = max(widths), sum(heights) + ROW_GAP * (len(ROWS) - 1)
    figure = Figure(figsize=(total_width, total_height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, total_width), ylim=(0, total_height))
    axes.axis("off")
    placed: dict[str, Extent] = {}
    top = total_height
    for row, width, height in zip(ROWS, widths, heights, strict=True):
        left = (total_width - width) / 2
        for package in row:
            own_width, own_height = size(plans[package])
            draw_box(axes, (left, top - own_height), own_width, own_height, FILLS[package])
            axes.text(
                left + MARGIN,
                top - TITLE_HEIGHT,
                package,
                color=TEXT_COLOR,
                fontsize=13,
                fontweight="bold",
                va="center",
            )
            draw_folders(axes, place_folders(plans[package], left, top, own_width), arrows[package])
            placed[package] = left, left + own_width, top, top - own_height
            left += own_width + GAP
        top -= height + ROW_GAP
    draw_package_arrows(axes, placed, find_arrows(graph, packages))
    return figure


def write(file: Path) -> None:
    """Write the picture; the same imports give the same bytes."""
    graph = grimp.build_graph(*(package for row in ROWS for package in row))
    with rc_context({"svg.hashsalt": "osteon", "svg.fonttype": "none", "font.family": "sans-serif"}):
        draw(graph).savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    write(FILE)
