"""Breaks the text of a capture into lines of a given width and draws them on a picture."""

from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageDraw, ImageFont

NO_BREAK_SPACE = "\u00a0"
"""A space at which lines are not broken."""
MIN_FONT_SIZE = 8
"""Minimum font size in pixels; a word that is still too long overflows."""
LINE_HEIGHT = 1.2
"""Distance between lines, in font sizes."""
INDENT = 16
"""Margin in pixels to the left and right of a paragraph; constant, so that paragraphs are aligned."""
PARAGRAPH_SPACE = 0.25
"""Space above and below a paragraph, in font sizes."""

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a capture's text, broken into lines.

    Attributes:
        size: font size in pixels.
    """

    lines: tuple[str, ...]
    size: int

    @property
    def height(self) -> int:
        """Height of the paragraph in pixels, including the space above and below."""
        return self._step * len(self.lines) + 2 * self._space

    def draw(self, on: ImageDraw.ImageDraw, color: Color) -> None:
        """Draw the lines of the paragraph from the top of a picture."""
        for number, line in enumerate(self.lines):
            place = INDENT, self._space + number * self._step
            on.text(place, line, fill=color, font=_font(self.size))

    @property
    def _space(self) -> int:
        return round(PARAGRAPH_SPACE * self.size)

    @property
    def _step(self) -> int:
        return round(LINE_HEIGHT * self.size)


def layout_paragraph(text: str, size: int, width: int) -> Paragraph:
    """Break text into a paragraph of lines of at most `width` pixels.

    The font shrinks if the longest word does not fit.
    """
    words = text.split(" ")
    while size > MIN_FONT_SIZE and max(_length(word, size) for word in words) > width - 2 * INDENT:
        size -= 1
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if _length(longer, size) <= width - 2 * INDENT:
            lines[-1] = longer
        else:
            lines.append(word)
    return Paragraph(tuple(line.replace(NO_BREAK_SPACE, " ") for line in lines), size)


def _length(text: str, size: int) -> float:
    return float(_font(size).getlength(text.replace(NO_BREAK_SPACE, " ")))


@lru_cache(maxsize=128)
def _font(size: int) -> Font:
    """Return Pillow's built-in font, which is the same on every machine."""
    return ImageFont.load_default(size)
