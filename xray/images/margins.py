"""Finds the part of an image inside uniform margins and collimation borders.

A margin is a strip along one side with one brightness, of any level, that ends at a straight edge parallel to the side.
Air beside a limb has no such edge and is kept. A margin may contain letters. Margins may be nested, so they are removed
from the outside to the inside. An image and its negative have the same margins.

Legend: n lines parallel to a side, from that side inwards; m pixels of a line.
"""

import numpy as np
import numpy.typing as npt

MAX_MARGIN_SHARE = 0.45
"""Limit on the margins of one side together, as a share of the image's height or width."""
MIN_LINES_INSIDE = 16
"""Minimum number of lines between the margins."""
PIXELS_PER_LINE = 256
"""Approximate number of pixels of a line that are examined."""
MIN_ALIKE_SHARE = 0.9
"""Minimum share of a margin's pixels that have its brightness; letters may cover the others."""

DRAWN_TOLERANCE = 12
"""Maximum change by noise and JPEG of the pixels of a margin that a program has drawn, in gray levels."""
DRAWN_LAST_LINE_SHARE = 0.98
"""Minimum share of the last line of a drawn margin that is within the tolerance; nothing may cross this line."""
DRAWN_EDGE_LINES = 3
"""Maximum width of the edge of a drawn margin in lines; scaling and JPEG blur it."""
DRAWN_EDGES = ((6, 0.9), (16, 0.7), (30, 0.15))
"""Pairs of gray levels and a share. At the edge of a drawn margin, for at least one pair, at least that share of the
pixels differs by more gray levels: almost all by a little, where there is air, or some by much, where a limb is cut off
and the air is like the margin."""

SHADOW_TOLERANCE = 24
"""Gray levels by which a pixel in a collimator's shadow may differ from the median of its line. The median is not that
of the whole margin, because the shadow fades from line to line and towards the corners."""
SHADOW_LAST_LINE_SHARE = 0.95
"""Minimum share of the last line of a shadow that is within the tolerance."""
SHADOW_EDGE_SHARE = 0.03
"""Maximum width of the edge of a shadow, as a share of the height or width: it has a penumbra and may be oblique."""
SHADOW_DETAIL = 8
"""Gray levels; a pixel that differs by more from the mean of two others in its line shows detail."""
SHADOW_DETAIL_SHARE = 0.12
"""Share of the pixels; if more show detail, anatomy is visible through the shadow, and the shadow is kept."""
DETAIL_REACH = 0.1
"""Distance to these two other pixels, as a share of the line."""
SHADOW_STEP, SHADOW_STEP_SHARE = 60, 0.95
"""Minimum change in gray levels across the edge of a shadow, all in one direction, and the share of the pixels that
changes so much."""

COMPLETE_SHARE = 0.9
"""An edge ends where it has reached this share of its final difference."""

Pixels = npt.NDArray[np.uint8]
Lines = npt.NDArray[np.int16]


def inside_margins(pixels_HW: Pixels) -> tuple[slice, slice]:
    """Find the rows and columns of an image (H, W) that lie inside all margins."""
    edges = [0, pixels_HW.shape[0], 0, pixels_HW.shape[1]]  # top, bottom, left, right
    has_changed = True
    while has_changed:
        has_changed = False
        for side in range(4):
            has_changed |= _remove_margin(pixels_HW, edges, side)
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def _remove_margin(pixels_HW: Pixels, edges: list[int], side: int) -> bool:
    """Move the edge of a side inwards past its outermost margin; False if it has none."""
    top, bottom, left, right = edges
    lines = pixels_HW[top:bottom, left:right]
    length = pixels_HW.shape[side // 2]
    lines = lines if side < 2 else lines.T
    is_far = side % 2 == 1
    spent = length - edges[side] if is_far else edges[side]
    max_width = min(int(MAX_MARGIN_SHARE * length) - spent, len(lines) - MIN_LINES_INSIDE)
    width = _margin_width(lines[::-1] if is_far else lines, max_width, length) if max_width > 0 else 0
    edges[side] += -width if is_far else width
    return width > 0


def _margin_width(lines: Pixels, max_width: int, length: int) -> int:
    """Return the width of the outermost margin, at most `max_width`; 0 if there is none.

    Args:
        lines: the image, with the side in question first.
        length: height or width of the whole image, to which shares refer.
    """
    shadow_edge_lines = max(1, round(SHADOW_EDGE_SHARE * length))
    drawn_edge_lines = min(DRAWN_EDGE_LINES, max(1, length // 100))
    step = max(1, lines.shape[1] // PIXELS_PER_LINE)
    lines_nm = lines[: max_width + max(shadow_edge_lines, drawn_edge_lines), ::step].astype(np.int16)
    if (np.abs(lines_nm[0] - np.median(lines_nm[0])) <= SHADOW_TOLERANCE).mean() < MIN_ALIKE_SHARE:
        return 0
    return max(
        _drawn_margin_width(lines_nm, max_width, drawn_edge_lines),
        _shadow_width(lines_nm, max_width, shadow_edge_lines),
    )


def _drawn_margin_width(lines_nm: Lines, max_width: int, edge_lines: int) -> int:
    differences_nm = np.abs(lines_nm - np.median(lines_nm[0]))
    may_end_n = _alike_so_far(differences_nm <= DRAWN_TOLERANCE, DRAWN_LAST_LINE_SHARE)
    ends_n = np.zeros(len(lines_nm) - edge_lines, bool)
    for step, share in DRAWN_EDGES:
        above_n = (differences_nm > step).mean(1)
        ends_n |= (above_n[:-edge_lines] <= 1 - DRAWN_LAST_LINE_SHARE) & (above_n[edge_lines:] >= share)
    return _full_width(differences_nm, np.flatnonzero((may_end_n[:-edge_lines] & ends_n)[:max_width]), edge_lines)


def _shadow_width(lines_nm: Lines, max_width: int, edge_lines: int) -> int:
    changes_nm = lines_nm[edge_lines:] - lines_nm[:-edge_lines]
    steps_n = np.maximum((changes_nm > SHADOW_STEP).mean(1), (changes_nm < -SHADOW_STEP).mean(1))
    has_step_n = (steps_n >= SHADOW_STEP_SHARE)[:max_width]
    if not has_step_n.any():
        return 0
    lines_nm = lines_nm[: np.flatnonzero(has_step_n)[-1] + 1 + edge_lines]
    alike_nm = np.abs(lines_nm - np.median(lines_nm, axis=1, keepdims=True)) <= SHADOW_TOLERANCE
    alike_nm &= _is_plain(lines_nm)[:, np.newaxis]
    may_end_n = _alike_so_far(alike_nm, SHADOW_LAST_LINE_SHARE)
    ends = np.flatnonzero(may_end_n[:-edge_lines] & has_step_n[: len(lines_nm) - edge_lines])
    return _full_width(np.abs(lines_nm - lines_nm[ends[-1]]), ends, edge_lines) if len(ends) else 0


def _is_plain(lines_nm: Lines) -> npt.NDArray[np.bool_]:
    """Return for each line, (n,), whether its brightness only changes slowly."""
    reach = max(1, round(DETAIL_REACH * lines_nm.shape[1]))
    details_nm = np.abs(lines_nm[:, reach:-reach] - (lines_nm[:, 2 * reach :] + lines_nm[:, : -2 * reach]) / 2)
    return np.asarray((details_nm > SHADOW_DETAIL).mean(1) <= SHADOW_DETAIL_SHARE)


def _alike_so_far(alike_nm: npt.NDArray[np.bool_], last_line_share: float) -> npt.NDArray[np.bool_]:
    """Return for each line, (n,), whether a margin may end there, given which pixels (n, m) have its brightness."""
    alike_n = alike_nm.mean(1)
    are_alike_n = np.cumsum(alike_n) >= MIN_ALIKE_SHARE * np.arange(1, len(alike_n) + 1)
    return np.asarray(alike_n >= last_line_share) & are_alike_n


def _full_width(differences_nm: Lines, ends: npt.NDArray[np.intp], edge_lines: int) -> int:
    """Return the width up to the last possible end, plus the lines of its incomplete edge; 0 if there is no end."""
    if not len(ends):
        return 0
    width = int(ends[-1]) + 1
    beyond_n = differences_nm[width : width + edge_lines].mean(1)
    return width + int(np.argmax(beyond_n >= COMPLETE_SHARE * beyond_n[-1]))
