"""Find what of an image lies inside uniform margins and collimation borders.

A margin is a strip along one side that has one brightness, whichever, and ends at a straight edge that is parallel to
the side. Air beside a limb has no such edge and stays. Letters may stand in a margin, and margins may lie inside each
other; they are peeled off from outside. An image and its negative have the same margins.

Legend: n lines parallel to a side, from that side inwards; m pixels of a line.
"""

import numpy as np
import numpy.typing as npt

MAX_SHARE = 0.45
"""Of the image's height or width, for the margins of one side together."""
MIN_INSIDE = 16
"""Lines that must be left."""
LINE_PIXELS = 256
"""About so many pixels of a line are looked at."""
ALIKE_ALL = 0.9
"""Share of a margin's pixels that must have its brightness; letters may take up the others."""

DRAWN_TOLERANCE, DRAWN_ALIKE_LAST = 12, 0.98
"""Of a margin that a program has drawn. Gray levels from its own that noise and JPEG add, and the share of such pixels
in its last line, which nothing may cross."""
DRAWN_SOFT_LINES = 3
"""Lines within which its edge is complete; scaling and JPEG soften it."""
DRAWN_EDGES = ((6, 0.9), (16, 0.7), (30, 0.15))
"""One of these shares of the pixels behind its edge differs from the margin by more gray levels than this: nearly all
by little, where air lies there, or some by much, where a limb is cut off and the air is like the margin."""

SHADOW_TOLERANCE, SHADOW_ALIKE_LAST = 24, 0.95
"""Of a collimator's shadow. Gray levels from the median of its line, for it fades slowly from line to line and towards
the corners, and the share of such pixels in its last line."""
SHADOW_SOFT_SHARE = 0.03
"""Of the height or width, within which its edge is complete: it has a penumbra and may not be quite straight."""
SHADOW_DETAIL, SHADOW_DETAIL_SHARE, DETAIL_REACH = 8, 0.12, 0.1
"""Gray levels by which a pixel may differ from the mean of two others of its line, the share of pixels that may differ
by more, and how far away the others are, as a share of the line. Where more differ, anatomy shows through the shadow,
and it is not cut off."""
SHADOW_STEP, SHADOW_STEP_SHARE = 60, 0.95
"""Gray levels by which so large a share of the pixels changes across its edge, all in the same direction."""

COMPLETE = 0.9
"""Share of its final difference at which an edge is over."""

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int16]


def inside_margins(pixels_HW: Pixels) -> tuple[slice, slice]:
    """The rows and columns of an image (H, W) that lie inside all margins."""
    edges = [0, pixels_HW.shape[0], 0, pixels_HW.shape[1]]  # top, bottom, left, right
    found = True
    while found:
        found = False
        for side in range(4):
            found |= _peel(pixels_HW, edges, side)
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def _peel(pixels_HW: Pixels, edges: list[int], side: int) -> bool:
    """Move the edge of a side behind its outermost margin, if it has one."""
    top, bottom, left, right = edges
    lines, length = pixels_HW[top:bottom, left:right], pixels_HW.shape[side // 2]
    lines = lines if side < 2 else lines.T
    is_far = side % 2 == 1
    spent = length - edges[side] if is_far else edges[side]
    most = min(int(MAX_SHARE * length) - spent, len(lines) - MIN_INSIDE)
    width = _margin(lines[::-1] if is_far else lines, most, length) if most > 0 else 0
    edges[side] += -width if is_far else width
    return width > 0


def _margin(lines: Pixels, most: int, length: int) -> int:
    """How many of the outermost lines are a margin, `most` at most; 0 if there is none."""
    shadow_soft = max(1, round(SHADOW_SOFT_SHARE * length))
    drawn_soft = min(DRAWN_SOFT_LINES, max(1, length // 100))
    lines_nm = lines[: most + max(shadow_soft, drawn_soft), :: max(1, lines.shape[1] // LINE_PIXELS)].astype(np.int16)
    if (np.abs(lines_nm[0] - np.median(lines_nm[0])) <= SHADOW_TOLERANCE).mean() < ALIKE_ALL:
        return 0
    return max(_drawn_margin(lines_nm, most, drawn_soft), _shadow(lines_nm, most, shadow_soft))


def _drawn_margin(lines_nm: Levels, most: int, soft: int) -> int:
    differences_nm = np.abs(lines_nm - np.median(lines_nm[0]))
    may_end_n = _alike_so_far(differences_nm <= DRAWN_TOLERANCE, DRAWN_ALIKE_LAST)
    ends_n = np.zeros(len(lines_nm) - soft, bool)
    for step, share in DRAWN_EDGES:
        above_n = (differences_nm > step).mean(1)
        ends_n |= (above_n[:-soft] <= 1 - DRAWN_ALIKE_LAST) & (above_n[soft:] >= share)
    return _width(differences_nm, np.flatnonzero((may_end_n[:-soft] & ends_n)[:most]), soft)


def _shadow(lines_nm: Levels, most: int, soft: int) -> int:
    changes_nm = lines_nm[soft:] - lines_nm[:-soft]
    steps_n = np.maximum((changes_nm > SHADOW_STEP).mean(1), (changes_nm < -SHADOW_STEP).mean(1))
    has_step_n = (steps_n >= SHADOW_STEP_SHARE)[:most]
    if not has_step_n.any():
        return 0
    lines_nm = lines_nm[: np.flatnonzero(has_step_n)[-1] + 1 + soft]
    alike_nm = np.abs(lines_nm - np.median(lines_nm, axis=1, keepdims=True)) <= SHADOW_TOLERANCE
    alike_nm &= _is_plain(lines_nm)[:, np.newaxis]
    ends = np.flatnonzero(_alike_so_far(alike_nm, SHADOW_ALIKE_LAST)[:-soft] & has_step_n[: len(lines_nm) - soft])
    return _width(np.abs(lines_nm - lines_nm[ends[-1]]), ends, soft) if len(ends) else 0


def _is_plain(lines_nm: Levels) -> npt.NDArray[np.bool_]:
    """Whether lines show nothing but a slow change of brightness."""
    reach = max(1, round(DETAIL_REACH * lines_nm.shape[1]))
    details_nm = np.abs(lines_nm[:, reach:-reach] - (lines_nm[:, 2 * reach :] + lines_nm[:, : -2 * reach]) / 2)
    return np.asarray((details_nm > SHADOW_DETAIL).mean(1) <= SHADOW_DETAIL_SHARE)


def _alike_so_far(alike_nm: npt.NDArray[np.bool_], alike_last: float) -> npt.NDArray[np.bool_]:
    """Whether a margin may reach up to each line, by what its pixels are."""
    alike_n = alike_nm.mean(1)
    return np.asarray(alike_n >= alike_last) & (np.cumsum(alike_n) >= ALIKE_ALL * np.arange(1, len(alike_n) + 1))


def _width(differences_nm: Levels, ends: npt.NDArray[np.intp], soft: int) -> int:
    """Lines up to the last of the possible ends, and those in which its edge is not yet complete."""
    if not len(ends):
        return 0
    behind = int(ends[-1]) + 1
    beyond_n = differences_nm[behind : behind + soft].mean(1)
    return behind + int(np.argmax(beyond_n >= COMPLETE * beyond_n[-1]))
