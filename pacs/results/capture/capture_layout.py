"""One picture of what was found in a study: its overlays side by side under a banner.

    +-- notice --------------------+
    |   what was found, by whom    |
    +-- caption --+-- caption -----+
    |   overlay   |    overlay     |
    +-------------+----------------+
    |   what the colours mean      |
    +------------------------------+

The size of the letters follows that of the picture: a viewer fits the picture into its window, and shrinks both.
Nothing of the patient is drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pacs.results.capture.text_layout import BOUND, Colour, paragraph
from pacs.results.picture import MAX_IN_ROW, tallest
from pacs.results.result import ALGORITHM, NOTICE, RadiographFinding, StudyFinding
from xray.images.radiograph import PixelArray

MIN_HEIGHT = 512
"""Of an overlay, in pixels; all have the same."""
MAX_WIDTH = 4096
"""Of a row of overlays, in pixels; more than this shrinks all overlays."""
MIN_WIDTH, MIN_CELL = 720, 240
"""Of the picture and of the place of an overlay, in pixels: less has no room for words."""
MAX_STEEPNESS = 2
"""Height of all overlays by the width of the picture, beyond which the notice would not fit into a line."""
GAP = 8
"""Between overlays, in pixels."""
LETTERS_ACROSS, MAX_LETTERS_ACROSS = 36, 64
"""The side of a square as large as all overlays, and the longest side they may have, by the size of a letter."""
NOTICE_SIZE, DETAIL_SIZE = 1.6, 0.8
"""By the size of the other letters."""
FRAME_SHARE = 300
"""Height of an overlay by the thickness of a frame."""

KEY = "Red: where the evidence is greatest in each radiograph. White frames: its regions."
BLACK, WHITE, GRAY, AMBER = (0, 0, 0), (255, 255, 255), (190, 190, 190), (255, 191, 0)


@dataclass(frozen=True)
class _Cell:
    """One radiograph's place in its row."""

    picture_HW3: PixelArray
    caption: str

    @property
    def width(self) -> int:
        return max(MIN_CELL, int(self.picture_HW3.shape[1]))


def draw(finding: StudyFinding) -> PixelArray:
    """(H, W, 3) uint8 RGB."""
    rows = _rows(finding.radiographs)
    height = sum(row[0].picture_HW3.shape[0] for row in rows)
    width = max(MIN_WIDTH, height // MAX_STEEPNESS, *(_row_width(row) for row in rows))
    size = max(math.isqrt(width * height) // LETTERS_ACROSS, max(width, height) // MAX_LETTERS_ACROSS)
    strips = [_words(NOTICE, round(NOTICE_SIZE * size), width, (BLACK, AMBER))]
    strips += [_words(sentence, size, width, (WHITE, BLACK)) for sentence in _statements(finding)]
    strips += [_words(detail, round(DETAIL_SIZE * size), width, (GRAY, BLACK)) for detail in _details(finding)]
    strips += [_row_picture(row, size, width) for row in rows]
    strips.append(_words(KEY, round(DETAIL_SIZE * size), width, (GRAY, BLACK)))
    return np.concatenate(strips)


def _rows(radiographs: tuple[RadiographFinding, ...]) -> list[list[_Cell]]:
    """All overlays in one height, so many of them beside each other as can be seen."""
    numbered = list(enumerate(radiographs, 1))
    rows = [numbered[start : start + MAX_IN_ROW] for start in range(0, len(numbered), MAX_IN_ROW)]
    aspects = [sum(each.picture.width / each.picture.height for _, each in row) for row in rows]
    largest = max(each.picture.height for each in radiographs)
    height = int(min(max(MIN_HEIGHT, largest), tallest(len(radiographs)), MAX_WIDTH / max(aspects)))
    return [
        [_Cell(_scaled(each, height), _caption(each, number, len(radiographs))) for number, each in row] for row in rows
    ]


def _scaled(radiograph: RadiographFinding, height: int) -> PixelArray:
    """The overlay in that height, with frames around its regions: white between black, to be seen on any colour."""
    old = radiograph.picture
    width = max(1, round(height / old.height * old.width))
    picture = Image.fromarray(old.pixels_HW3).resize((width, height), Image.Resampling.BICUBIC)
    drawing = ImageDraw.Draw(picture)
    down, across = height / old.radiograph_height, width / old.radiograph_width
    thickness = max(2, height // FRAME_SHARE)
    for box in radiograph.regions:
        left, top = round(across * box.left), round(down * box.top)
        right, bottom = round(across * (box.left + box.width)) - 1, round(down * (box.top + box.height)) - 1
        for colour, outside, line_width in ((BLACK, 3 * thickness, 3 * thickness), (WHITE, 2 * thickness, thickness)):
            corners = (left - outside, top - outside, right + outside, bottom + outside)
            drawing.rectangle(corners, outline=colour, width=line_width)
    return np.asarray(picture)


def _caption(radiograph: RadiographFinding, number: int, count: int) -> str:
    source = radiograph.source
    tags = " ".join(tag for tag in (source.laterality, source.view) if tag)
    which = ", ".join(part for part in (f"{number} of {count}" if count > 1 else "", tags) if part)
    return f"{which}{': ' if which else ''}probability{BOUND}{radiograph.probability:.3f}"


def _row_width(row: list[_Cell]) -> int:
    return sum(cell.width for cell in row) + GAP * (len(row) - 1)


def _statements(finding: StudyFinding) -> list[str]:
    found = [
        f"Probability of abnormality {finding.probability:.3f}, threshold {finding.threshold:.3f}",
        f"Label: {finding.label}. Decision: {finding.decision}.",
    ]
    if not finding.is_complete:
        count = f"{len(finding.left_out)}{' and more' if finding.more_left_out else ''}"
        found.append(f"Radiographs that were not judged: {count}. The report says why.")
    return found


def _details(finding: StudyFinding) -> list[str]:
    return [f"{ALGORITHM} {finding.version}, checkpoint {finding.checkpoint}"]


def _words(text: str, size: int, width: int, colours: tuple[Colour, Colour]) -> PixelArray:
    """(h, width, 3): the text in the first colour on the second."""
    words = paragraph(text, size, width)
    strip = Image.new("RGB", (width, words.height), colours[1])
    words.draw(ImageDraw.Draw(strip), colours[0])
    return np.asarray(strip)


def _row_picture(row: list[_Cell], size: int, width: int) -> PixelArray:
    """(h, width, 3): captions, and under each its overlay; the row in the middle of the width."""
    captions = [_words(cell.caption, size, cell.width, (WHITE, BLACK)) for cell in row]
    above, height = max(caption.shape[0] for caption in captions), row[0].picture_HW3.shape[0]
    picture_HW3 = np.zeros((above + height + GAP, width, 3), np.uint8)
    left = (width - _row_width(row)) // 2
    for cell, caption in zip(row, captions, strict=True):
        picture_HW3[: caption.shape[0], left : left + cell.width] = caption
        start = left + (cell.width - cell.picture_HW3.shape[1]) // 2
        picture_HW3[above : above + height, start : start + cell.picture_HW3.shape[1]] = cell.picture_HW3
        left += cell.width + GAP
    return picture_HW3
