"""Draws the capture of a study: the overlays of all radiographs side by side under a banner.

    +-- notice --------------------+
    |   findings, software         |
    +-- caption --+-- caption -----+
    |   overlay   |    overlay     |
    +-------------+----------------+
    |   legend                     |
    +------------------------------+

The font grows with the picture, because a viewer scales both to its window. No patient data is drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pacs.results.capture.text_layout import NO_BREAK_SPACE, Color, layout_paragraph
from pacs.results.picture import MAX_IN_ROW, max_picture_height
from pacs.results.result import ALGORITHM, NOTICE, RadiographFinding, StudyFinding
from xray.images.radiograph import PixelArray

MIN_OVERLAY_HEIGHT = 512
"""Minimum height of the overlays in pixels; all have the same height."""
MAX_ROW_WIDTH = 4096
"""Maximum width of a row of overlays in pixels; if a row is wider, all overlays shrink."""
MIN_WIDTH, MIN_CELL_WIDTH = 720, 240
"""Minimum widths of the picture and of an overlay's cell in pixels, so that the text fits."""
MAX_HEIGHT_TO_WIDTH = 2
"""Maximum ratio of the overlays' total height to the picture's width, so that the notice fits on a line."""
GAP = 8
"""Pixels between overlays."""
LETTERS_ACROSS, MAX_LETTERS_ACROSS = 36, 64
"""Side of a square with the area of all overlays, and maximum of their longest side, both in font sizes."""
NOTICE_SIZE, DETAIL_SIZE = 1.6, 0.8
"""Font sizes of the notice and the details, relative to the other text."""
HEIGHT_TO_FRAME = 300
"""Ratio of an overlay's height to the thickness of a frame."""

LEGEND = "Red: where the evidence is greatest in each radiograph. White frames: its regions."
BLACK, WHITE, GRAY, AMBER = (0, 0, 0), (255, 255, 255), (190, 190, 190), (255, 191, 0)


@dataclass(frozen=True)
class _Cell:
    """A radiograph's cell in its row."""

    picture_HW3: PixelArray
    caption: str

    @property
    def width(self) -> int:
        """Width of the cell in pixels."""
        return max(MIN_CELL_WIDTH, int(self.picture_HW3.shape[1]))


def draw_capture(finding: StudyFinding) -> PixelArray:
    """Return the capture of a study, laid out under its banner, as (H, W, 3) uint8 RGB."""
    rows = _rows(finding.radiographs)
    height = sum(row[0].picture_HW3.shape[0] for row in rows)
    width = max(MIN_WIDTH, height // MAX_HEIGHT_TO_WIDTH, *(_row_width(row) for row in rows))
    size = max(math.isqrt(width * height) // LETTERS_ACROSS, max(width, height) // MAX_LETTERS_ACROSS)
    strips = [_text_strip(NOTICE, round(NOTICE_SIZE * size), width, (BLACK, AMBER))]
    strips += [_text_strip(sentence, size, width, (WHITE, BLACK)) for sentence in _statements(finding)]
    strips += [_text_strip(detail, round(DETAIL_SIZE * size), width, (GRAY, BLACK)) for detail in _details(finding)]
    strips += [_row_picture(row, size, width) for row in rows]
    strips.append(_text_strip(LEGEND, round(DETAIL_SIZE * size), width, (GRAY, BLACK)))
    return np.concatenate(strips)


def _rows(radiographs: tuple[RadiographFinding, ...]) -> list[list[_Cell]]:
    """Scale all overlays to one height and arrange them in rows of at most `MAX_IN_ROW`."""
    numbered = list(enumerate(radiographs, 1))
    rows = [numbered[start : start + MAX_IN_ROW] for start in range(0, len(numbered), MAX_IN_ROW)]
    aspects = [sum(each.picture.width / each.picture.height for _, each in row) for row in rows]
    largest = max(each.picture.height for each in radiographs)
    height = int(
        min(max(MIN_OVERLAY_HEIGHT, largest), max_picture_height(len(radiographs)), MAX_ROW_WIDTH / max(aspects))
    )
    return [
        [_Cell(_scaled(each, height), _caption(each, number, len(radiographs))) for number, each in row] for row in rows
    ]


def _scaled(radiograph: RadiographFinding, height: int) -> PixelArray:
    """Scale an overlay and frame its regions in white between black lines, which are visible on any color."""
    old = radiograph.picture
    width = max(1, round(height / old.height * old.width))
    picture = Image.fromarray(old.pixels_HW3).resize((width, height), Image.Resampling.BICUBIC)
    drawing = ImageDraw.Draw(picture)
    down, across = height / old.radiograph_height, width / old.radiograph_width
    thickness = max(2, height // HEIGHT_TO_FRAME)
    for box in radiograph.regions:
        left, top = round(across * box.left), round(down * box.top)
        right, bottom = round(across * (box.left + box.width)) - 1, round(down * (box.top + box.height)) - 1
        for color, outside, line_width in ((BLACK, 3 * thickness, 3 * thickness), (WHITE, 2 * thickness, thickness)):
            corners = (left - outside, top - outside, right + outside, bottom + outside)
            drawing.rectangle(corners, outline=color, width=line_width)
    return np.asarray(picture)


def _caption(radiograph: RadiographFinding, number: int, count: int) -> str:
    source = radiograph.source
    tags = " ".join(tag for tag in (source.laterality, source.view) if tag)
    which = ", ".join(part for part in (f"{number} of {count}" if count > 1 else "", tags) if part)
    return f"{which}{': ' if which else ''}probability{NO_BREAK_SPACE}{radiograph.probability:.3f}"


def _row_width(row: list[_Cell]) -> int:
    return sum(cell.width for cell in row) + GAP * (len(row) - 1)


def _statements(finding: StudyFinding) -> list[str]:
    found = [
        f"Probability of abnormality {finding.probability:.3f}, threshold {finding.threshold:.3f}",
        f"Label: {finding.label}. Decision: {finding.decision}.",
    ]
    if finding.decision_reason:
        found.append(finding.decision_reason)
    if not finding.is_complete:
        count = f"{len(finding.left_out)}{' and more' if finding.more_left_out else ''}"
        found.append(f"Radiographs that were not judged: {count}. The report says why.")
    return found


def _details(finding: StudyFinding) -> list[str]:
    return [f"{ALGORITHM} {finding.version}, checkpoint {finding.checkpoint}"]


def _text_strip(text: str, size: int, width: int, colors: tuple[Color, Color]) -> PixelArray:
    """Return (h, width, 3): the text in the first color on the second."""
    words = layout_paragraph(text, size, width)
    strip = Image.new("RGB", (width, words.height), colors[1])
    words.draw(ImageDraw.Draw(strip), colors[0])
    return np.asarray(strip)


def _row_picture(row: list[_Cell], size: int, width: int) -> PixelArray:
    """Return (h, width, 3): the captions with the overlays below, centered."""
    captions = [_text_strip(cell.caption, size, cell.width, (WHITE, BLACK)) for cell in row]
    above, height = max(caption.shape[0] for caption in captions), row[0].picture_HW3.shape[0]
    picture_HW3 = np.zeros((above + height + GAP, width, 3), np.uint8)
    left = (width - _row_width(row)) // 2
    for cell, caption in zip(row, captions, strict=True):
        picture_HW3[: caption.shape[0], left : left + cell.width] = caption
        start = left + (cell.width - cell.picture_HW3.shape[1]) // 2
        picture_HW3[above : above + height, start : start + cell.picture_HW3.shape[1]] = cell.picture_HW3
        left += cell.width + GAP
    return picture_HW3
