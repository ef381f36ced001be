"""Drawn radiographs: two bones in soft tissue on dark air, with or without a planted fracture."""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np

from xray.images.radiograph import PixelArray

AIR, TISSUE, MARROW, CORTEX = 12.0, 70.0, 135.0, 205.0
"""Gray levels."""
NOISE = 4.0
"""Standard deviation of the detector's noise, in gray levels."""


def draw_phantom(seed: int, fracture: bool = False, height: int = 160, width: int = 128) -> PixelArray:
    """(height, width) uint8: a joint of two bones, seeded; a fracture breaks the lower one."""
    random = np.random.default_rng([seed, 1])
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    v, u = y / height, x / width
    tilt, axis = random.uniform(-0.15, 0.15), random.uniform(0.44, 0.56)
    across = u - axis - tilt * (v - 0.5)
    limb = random.uniform(0.26, 0.33) * (1 + 0.12 * np.sin(3 * v + random.uniform(0, 6)))
    image = AIR + (TISSUE - AIR) * _edge(limb - np.abs(across), 0.02) * (1 - 0.5 * (across / limb).clip(-1, 1) ** 2)
    joint = random.uniform(0.42, 0.55)
    upper = _bone(across, v, (-0.1, joint - 0.012), random.uniform(0.075, 0.1))
    lower = _bone(_displaced(across, v, joint, random) if fracture else across, v, (joint + 0.012, 1.1), 0.08)
    if fracture:
        lower *= 1 - 0.75 * np.exp(-(((v - _break_line(across, joint)) / 0.008) ** 2))
    image = image * (1 - np.maximum(upper > 0, lower > 0) * 0.5) + np.maximum(upper, lower) * CORTEX
    image = cv2.GaussianBlur(image, (0, 0), max(0.6, height / 400)) + random.normal(0, NOISE, image.shape)
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)


def write_dataset(root: Path, studies: int, seed: int = 0) -> Path:
    """`studies` drawn studies in each of train and valid, in MURA v1.1 layout with its CSVs; every third has two views.

    Body parts and labels alternate, so that both splits hold both labels of both parts.
    """
    for split_number, split in enumerate(("train", "valid")):
        study_rows: list[list[object]] = []
        image_rows: list[list[object]] = []
        for number in range(studies):
            target, part = number % 2, ("XR_HAND", "XR_LEG")[number // 2 % 2]
            label = ("negative", "positive")[target]
            patient = f"patient{split_number * studies + number:05d}"
            folder = f"{root.name}/{split}/{part}/{patient}/study1_{label}"
            (root.parent / folder).mkdir(parents=True)
            study_rows.append([f"{folder}/", target])
            for view in range(1, 3 if number % 3 == 0 else 2):
                drawing = draw_phantom(hash((seed, split_number, number, view)) % 2**32, fracture=bool(target))
                image_rows.append([f"{folder}/image{view}.png"])
                cv2.imwrite(str(root.parent / f"{folder}/image{view}.png"), drawing)
        _write_csv(root / f"{split}_labeled_studies.csv", study_rows)
        _write_csv(root / f"{split}_image_paths.csv", image_rows)
    return root


def _bone(across: np.ndarray, v: np.ndarray, ends: tuple[float, float], half_width: float) -> np.ndarray:
    """Share of the cortex's brightness: a shaft with a bright rim that flares towards its ends."""
    start, stop = ends
    from_end = np.minimum(v - start, stop - v)
    flared = half_width * (1 + 0.7 * np.exp(-np.maximum(from_end, 0) / 0.06))
    inside = _edge(flared - np.abs(across), 0.006) * _edge(from_end, 0.006)
    depth = np.minimum(flared - np.abs(across), from_end) / half_width
    brightness = MARROW / CORTEX + (1 - MARROW / CORTEX) * np.exp(-(((depth - 0.15) / 0.22) ** 2))
    return np.asarray(inside * brightness)


def _displaced(across: np.ndarray, v: np.ndarray, joint: float, random: np.random.Generator) -> np.ndarray:
    offset = random.choice([-1, 1]) * random.uniform(0.02, 0.03)
    return np.asarray(across - offset * (v > _break_line(across, joint)))


def _break_line(across: np.ndarray, joint: float) -> np.ndarray:
    """Where along the limb the oblique break runs."""
    return np.asarray(joint + 0.22 + 0.5 * across)


def _edge(distance: np.ndarray, softness: float) -> np.ndarray:
    return (distance / softness + 0.5).clip(0, 1)


def _write_csv(file: Path, rows: list[list[object]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


if __name__ == "__main__":
    cv2.imwrite(sys.argv[1], draw_phantom(seed=11, fracture=True, height=512, width=410))
