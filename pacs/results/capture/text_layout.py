"""Words and a width in, lines of text drawn on a picture out, none of them cut."""

from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageDraw, ImageFont

BOUND = "\u00a0"
"""A space at which no line is broken."""
LEAST_SIZE = 8
"""Pixels; a word that is wider than its place even so runs over it."""
LEADING = 1.2
"""Height of a line by that of its letters."""
INDENT = 16
"""Pixels left and right of a paragraph, the same for all that stand above each other."""
SPACE = 0.25
"""Above and below a paragraph, by the size of its letters."""

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Paragraph:
    """Text that is broken into lines.

    Attributes:
        size: of its letters, in pixels.
    """

    lines: tuple[str, ...]
    size: int

    @property
    def height(self) -> int:
        """Of all lines and the space above and below, in pixels."""
        return self._step * len(self.lines) + 2 * self._space

    def draw(self, on: ImageDraw.ImageDraw, colour: Colour) -> None:
        for number, line in enumerate(self.lines):
            place = INDENT, self._space + number * self._step
            on.text(place, line, fill=colour, font=_font(self.size))

    @property
    def _space(self) -> int:
        return round(SPACE * self.size)

    @property
    def _step(self) -> int:
        return round(LEADING * self.size)


def paragraph(text: str, size: int, width: int) -> Paragraph:
    """Break the text to the width, in letters of that size or as much smaller as its longest word asks for."""
    words = text.split(" ")
    while size > LEAST_SIZE and max(_length(word, size) for word in words) > width - 2 * INDENT:
        size -= 1
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if _length(longer, size) <= width - 2 * INDENT:
            lines[-1] = longer
        else:
            lines.append(word)
    return Paragraph(tuple(line.replace(BOUND, " ") for line in lines), size)


def _length(text: str, size: int) -> float:
    return float(_font(size).getlength(text.replace(BOUND, " ")))


@lru_cache(maxsize=128)
def _font(size: int) -> Font:
    """Pillow's own: the same letters on every machine."""
    return ImageFont.load_default(size)
