"""Moves findings into normal radiographs and out of abnormal ones, so that only the finding tells the two apart.

A network that sees few hospitals learns which kinds of image are often abnormal. Here the label of a radiograph changes
and everything else stays. The same operations are also applied without a change of label, so that their traces mean
nothing.

Legend: S canvas side, h, w pixels of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from xray.images.radiograph import PixelArray

CONTEXT = 1.6
"""Side of a moved patch relative to the finding's box, so that the bone around it comes along."""
MIN_PATCH, MAX_PATCH = 16, 0.5
"""Smallest side of a patch in pixels, and largest as a share of the canvas side."""
MAX_ERASED = 0.2
"""Largest side of a frame that is erased, as a share of the canvas side; larger ones leave a visible hole."""
CANDIDATES = 12
"""Number of best matching places of which one is chosen."""
CHANGED = 2 / 3
"""Share of the counterfactual views whose label changes."""
ROTATIONS = (0, 1, 2, 3)
"""Quarter turns of a patch that are tried."""


@dataclass(frozen=True)
class Frame:
    """A rectangle on the canvas, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the frame."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def frames_of(region_1SS: PixelArray) -> list[Frame]:
    """Return the bounding frames of the connected parts of a region (1, S, S)."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats((region_1SS[0] > 0).astype(np.uint8))
    return [Frame(*map(int, row[:4])) for row in statistics[1:]]


def move_patch(
    canvas_1SS: PixelArray, donor: tuple[PixelArray, PixelArray], frame: Frame, random: np.random.Generator
) -> tuple[PixelArray, PixelArray] | None:
    """Blend a patch of another canvas into a canvas where the two match; None if the patch is too large.

    Poisson blending (Perez et al. 2003) keeps the canvas' gray levels around the patch.

    Args:
        donor: the other canvas and the mask of its findings, (1, S, S) each.
        frame: the part of the donor to move, a finding or not; what is around it comes along.

    Returns:
        The canvas (1, S, S) and the mask of the findings that were moved to it.
    """
    side = canvas_1SS.shape[1]
    wide = _grow(frame, side)
    if max(wide.width, wide.height) > MAX_PATCH * side:
        return None
    turn = int(random.choice(ROTATIONS))
    patch_hw, findings_hw = (np.ascontiguousarray(np.rot90(each_1SS[0][wide.pixels], turn)) for each_1SS in donor)
    top, left = _matching_place(canvas_1SS[0], patch_hw, random)
    place = Frame(left, top, patch_hw.shape[1], patch_hw.shape[0])
    region_1SS = np.zeros_like(canvas_1SS)
    region_1SS[0][place.pixels] = findings_hw
    return _blend(canvas_1SS, patch_hw, place), region_1SS


def erase(canvas_1SS: PixelArray, frames: Sequence[Frame], random: np.random.Generator) -> PixelArray | None:
    """Replace each frame of a canvas by matching tissue of the same canvas; None if a frame is too large for that.

    A finding goes with its frame. The other tissue has no finding only if all findings are among the frames.
    """
    if any(max(frame.width, frame.height) > MAX_ERASED * canvas_1SS.shape[1] for frame in frames):
        return None
    erased_1SS = canvas_1SS
    allowed_SS = np.ones(canvas_1SS.shape[1:], bool)
    for frame in frames:
        allowed_SS[_grow(frame, canvas_1SS.shape[1]).pixels] = False
    for frame in frames:
        erased_1SS = _replace(erased_1SS, _grow(frame, canvas_1SS.shape[1], 1.2), allowed_SS, random)
    return erased_1SS


def random_frame(canvas_1SS: PixelArray, like: Frame, random: np.random.Generator) -> Frame:
    """Return a frame of the size of another at a random place of the anatomy."""
    side = canvas_1SS.shape[1]
    rows, columns = np.nonzero(canvas_1SS[0] > np.median(canvas_1SS[0]))
    if not len(rows):
        rows, columns = np.array([side // 2]), np.array([side // 2])
    at = int(random.integers(len(rows)))
    left = int(np.clip(columns[at] - like.width // 2, 0, side - like.width))
    top = int(np.clip(rows[at] - like.height // 2, 0, side - like.height))
    return Frame(left, top, like.width, like.height)


def _grow(frame: Frame, side: int, factor: float = CONTEXT) -> Frame:
    """Return a larger frame with the same center, as far as the canvas allows."""
    height, width = (min(side - 4, max(MIN_PATCH, round(factor * n))) for n in (frame.height, frame.width))
    left = int(np.clip(frame.left + frame.width // 2 - width // 2, 2, side - 2 - width))
    top = int(np.clip(frame.top + frame.height // 2 - height // 2, 2, side - 2 - height))
    return Frame(left, top, width, height)


def _matching_place(image_SS: PixelArray, patch_hw: PixelArray, random: np.random.Generator) -> tuple[int, int]:
    """Return top and left of one of the places that correlate best with a patch; the patch fits in there."""
    likeness = cv2.matchTemplate(image_SS[2:-2, 2:-2], patch_hw, cv2.TM_CCOEFF_NORMED)
    height, width = patch_hw.shape
    level, _ = cv2.threshold(image_SS, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    centers_SS = image_SS[2 + height // 2 :, 2 + width // 2 :][: likeness.shape[0], : likeness.shape[1]]
    # Air is as smooth as a patch can be; and a patch of one gray level has no correlation.
    likeness = np.where(centers_SS > level, np.nan_to_num(likeness, nan=-1, posinf=-1, neginf=-1), -1)
    best = np.argsort(likeness.ravel())[-CANDIDATES * 8 :: 8]
    top, left = np.unravel_index(int(random.choice(best)), likeness.shape)
    return int(top) + 2, int(left) + 2


def _replace(canvas_1SS: PixelArray, frame: Frame, allowed_SS: np.ndarray, random: np.random.Generator) -> PixelArray:
    """Blend the tissue that fits best around a frame into it (Poisson blending), or inpaint it where none fits."""
    image_SS, (height, width) = canvas_1SS[0], (frame.height, frame.width)
    patch_hw = np.ascontiguousarray(image_SS[frame.pixels])
    rim_hw = np.ones(patch_hw.shape, np.uint8)
    rim_hw[height // 6 : height - height // 6, width // 6 : width - width // 6] = 0  # compare only around the frame
    likeness = cv2.matchTemplate(image_SS, patch_hw, cv2.TM_SQDIFF, mask=rim_hw)
    free = cv2.erode(allowed_SS.astype(np.uint8), np.ones((height, width), np.uint8), anchor=(0, 0))
    free = free[: likeness.shape[0], : likeness.shape[1]].astype(bool)
    if not free.any():
        hidden_SS = np.zeros_like(image_SS)
        hidden_SS[frame.pixels] = 255
        inpainted_SS: PixelArray = np.asarray(cv2.inpaint(image_SS, hidden_SS, 3, cv2.INPAINT_TELEA), np.uint8)
        return inpainted_SS[np.newaxis]
    cost = np.where(free, np.nan_to_num(likeness, nan=np.inf), np.inf)
    best = np.argsort(cost.ravel())[:4]
    top, left = np.unravel_index(int(random.choice(best)), cost.shape)
    return _blend(canvas_1SS, np.ascontiguousarray(image_SS[top : top + height, left : left + width]), frame)


def _blend(canvas_1SS: PixelArray, patch_hw: PixelArray, place: Frame) -> PixelArray:
    """Return the canvas with the patch's gradients in a place of the patch's size, away from the canvas' rim."""
    blended_SS3 = cv2.seamlessClone(
        cv2.cvtColor(patch_hw, cv2.COLOR_GRAY2BGR),
        cv2.cvtColor(canvas_1SS[0], cv2.COLOR_GRAY2BGR),
        np.full_like(patch_hw, 255),
        (place.left + place.width // 2, place.top + place.height // 2),
        cv2.NORMAL_CLONE,
    )
    return np.ascontiguousarray(blended_SS3[..., 0], np.uint8)[np.newaxis]


def counterfactual(
    view: tuple[PixelArray, PixelArray],
    finding: tuple[PixelArray, PixelArray],
    normal: PixelArray,
    random: np.random.Generator,
) -> tuple[PixelArray, PixelArray]:
    """Return a view with another label or, one time in three, with the same label and the traces of the operation.

    Args:
        view: canvas and mask of the findings, (1, S, S) each.
        finding: another view, with at least one finding.
        normal: the canvas of a view without findings.

    Returns:
        The new view; the given one if nothing fits.
    """
    canvas_1SS, region_1SS = view
    own, others = frames_of(region_1SS), frames_of(finding[1])
    frame = others[int(random.integers(len(others)))]
    changes_label = random.random() < CHANGED
    if own and changes_label:
        erased_1SS = erase(canvas_1SS, own, random)
        return view if erased_1SS is None else (erased_1SS, np.zeros_like(region_1SS))
    if own:
        return _spare(view, frame, random)
    donor = finding if changes_label else (normal, np.zeros_like(normal))
    if not changes_label:
        frame = random_frame(normal, frame, random)
    return move_patch(canvas_1SS, donor, frame, random) or view


def spare_frame(view: tuple[PixelArray, PixelArray], like: Frame, random: np.random.Generator) -> Frame | None:
    """Return a frame of the size of another at a random place of a view's anatomy; None if a finding is there."""
    canvas_1SS, region_1SS = view
    frame = random_frame(canvas_1SS, like, random)
    return None if region_1SS[0][_grow(frame, canvas_1SS.shape[1]).pixels].any() else frame


def _spare(
    view: tuple[PixelArray, PixelArray], like: Frame, random: np.random.Generator
) -> tuple[PixelArray, PixelArray]:
    """Erase a frame beside the findings, so that an erased frame does not tell that there is no finding."""
    canvas_1SS, region_1SS = view
    frame = spare_frame(view, like, random)
    erased_1SS = None if frame is None else erase(canvas_1SS, [frame], random)
    return view if erased_1SS is None else (erased_1SS, region_1SS)
