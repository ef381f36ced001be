"""Hundreds of random headers give the same gray as dcmtk's viewer, except where a rule below says why not.

Random, but the same in each run. Images are tiny, and dcmtk gets them uncompressed, while ours come in any syntax.
A disagreement counts as explained only where dcmtk shows what its rule predicts, and ours is what PS3.3 says.
"""

import math
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicom_files import dicom, lookup
from tests.tools import needs
from tests.waiting import HUNG_SECONDS
from xray.errors import NoContentError
from xray.images.dicom.decode import decode_dicom

pytestmark = pytest.mark.slow

SHAPE = (24, 20)
MIN_CONTRAST = 8
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)
NATIVE = SYNTAXES[:4]
WHOLE_WORDS = (*NATIVE, RLELossless)
"""Transfer syntaxes that keep the bits of a word beside the stored bits."""


@dataclass(frozen=True)
class Drawn:
    """The tags and stored values of a file.

    Attributes:
        values: (H, W) stored values, signed or not.
        unused: (H, W) what stands in the bits beside the stored ones.
    """

    values: np.ndarray
    unused: np.ndarray
    bits: int
    high_bit: int
    signed: bool
    syntax: UID
    tags: dict[str, Any] = field(default_factory=dict)

    def file(self, syntax: UID) -> bytes:
        shift, mask = self.high_bit + 1 - self.bits, (1 << self.bits) - 1
        words = (self.values & mask) << shift
        if syntax in WHOLE_WORDS:
            words = words | (self.unused & ~(mask << shift) & ((1 << self.allocated) - 1))
        tags = {"HighBit": self.high_bit, "PixelRepresentation": int(self.signed), **self.tags}
        if syntax == ExplicitVRBigEndian:
            tags = {key: turned(value) if key.endswith("Sequence") else value for key, value in tags.items()}
        return dicom(words.astype(f"u{self.allocated // 8}"), self.bits, syntax, **tags)

    @property
    def allocated(self) -> int:
        return 8 if self.bits <= 8 else 16

    @property
    def modality(self) -> np.ndarray:
        if table := self.tags.get("ModalityLUTSequence"):
            return mapped(table, self.values)
        return self.values * float(self.tags.get("RescaleSlope", 1)) + float(self.tags.get("RescaleIntercept", 0))


def turned(table: list[Any]) -> list[Any]:
    """The value in big-endian byte order."""
    _, first, bits = table[0].LUTDescriptor
    return lookup(first, bits, np.frombuffer(table[0].LUTData, "<u2"), ">u2")


def mapped(table: list[Any], values: np.ndarray) -> np.ndarray:
    first = int(table[0].LUTDescriptor[1])
    entries = np.frombuffer(table[0].LUTData, "<u2").astype(float)
    return np.asarray(entries[np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(int)])


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    bits = draw(st.sampled_from([8, 8, 10, 12, 12, 14, 15, 16]) | st.integers(7, 16))
    allocated = 8 if bits <= 8 else 16
    syntax = draw(st.sampled_from(SYNTAXES))
    high_bit = draw(st.integers(bits - 1, allocated - 1)) if syntax in WHOLE_WORDS else bits - 1
    signed = draw(st.booleans())
    lowest = -(1 << (bits - 1)) if signed else 0
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.integers(lowest, lowest + (1 << bits), SHAPE)
    values[10], values[11] = lowest, lowest + (1 << bits) - 1  # so that the image uses all of its bits
    unused = random.integers(0, 1 << allocated, SHAPE)
    tags: dict[str, Any] = {"PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))}
    if shape := draw(st.sampled_from([None, "IDENTITY", "INVERSE"])):
        tags["PresentationLUTShape"] = shape
    if draw(st.booleans()):
        tags["ImagerPixelSpacing"] = draw(st.sampled_from([[0.1, 0.2], [0.3, 0.1], [0.15, 0.15]]))
    if draw(st.integers(0, 3)) == 0:
        tags["PixelPaddingValue"] = int(values[draw(st.integers(12, 23)), 5])
    if draw(st.integers(0, 3)) == 0:
        tags |= draw(shutters())
    drawn = Drawn(values, unused, bits, high_bit, signed, syntax, tags | draw(modalities(lowest, bits)))
    outputs = drawn.modality
    return Drawn(values, unused, bits, high_bit, signed, syntax, drawn.tags | draw(windows(outputs)))


@st.composite
def modalities(draw: st.DrawFn, lowest: int, bits: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["none", "none", "rescale", "table"]))
    if kind == "rescale":
        # No falling or negative fractions: dcmtk shows the highest of these black, and others a step beside.
        slope = draw(st.sampled_from(["1", "2", "-1", "-3", "0.5", "0.25", "1.37"]))
        lowest_intercept = math.ceil(-lowest * float(slope)) if float(slope) % 1 else -5000
        return {"RescaleSlope": slope, "RescaleIntercept": str(lowest_intercept + draw(st.integers(0, 9999)))}
    if kind == "table":
        depth = draw(st.sampled_from([8, 10, 12, 16]))
        return {"ModalityLUTSequence": draw(tables(lowest, min(1 << bits, 4096), depth))}
    return {}


@st.composite
def tables(draw: st.DrawFn, lowest: int, count: int, depth: int) -> list[Any]:
    """A look-up table over `count` values that reaches white."""
    first = lowest + draw(st.integers(0, 30))
    share = np.linspace(0, 1, count) ** draw(st.sampled_from([0.5, 1.0, 2.0]))
    if draw(st.booleans()):
        share = share[::-1]
    return lookup(first, depth, np.rint(share * ((1 << depth) - 1)))


@st.composite
def windows(draw: st.DrawFn, outputs: np.ndarray) -> dict[str, Any]:
    kind = draw(st.sampled_from(["none", "window", "window", "window", "table"]))
    if kind == "none" and (outputs % 1).any():
        kind = "window"  # without one, dcmtk shows a half or a quarter of the levels of an image rescaled to fractions
    low, high = float(outputs.min()), float(outputs.max())
    if kind == "none":
        return {}
    if kind == "table":
        first = int(np.floor(low))
        if not first >= -32768 or not high <= 65535:
            return {}
        says, depth = draw(st.sampled_from([8, 10, 12, 14, 16])), draw(st.sampled_from([8, 10, 12, 16]))
        table = draw(tables(first, min(int(high - low) + 1, 4096), depth))
        table[0].LUTDescriptor = [table[0].LUTDescriptor[0], table[0].LUTDescriptor[1], says]
        table[0]["LUTDescriptor"].VR = "SS" if first < 0 else "US"
        return {"VOILUTSequence": table}
    function = draw(st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    center = low + (high - low) * draw(st.floats(0, 1))
    width = max(1.0, (high - low) * draw(st.floats(0.01, 1.5)))
    window = {"WindowCenter": f"{center:.6g}", "WindowWidth": f"{width:.6g}"}
    return window if function is None else {**window, "VOILUTFunction": function}


@st.composite
def shutters(draw: st.DrawFn) -> dict[str, Any]:
    left, upper = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    return {
        "ShutterShape": "RECTANGULAR",
        "ShutterLeftVerticalEdge": left,
        "ShutterRightVerticalEdge": draw(st.integers(left + 16, 20)),
        "ShutterUpperHorizontalEdge": upper,
        "ShutterLowerHorizontalEdge": draw(st.integers(upper + 17, 24)),
        "ShutterPresentationValue": draw(st.sampled_from([0, 0xFFFF])),
    }


def shown_by_dcmtk(drawn: Drawn, folder: Path) -> np.ndarray:
    source, target = folder / "drawn.dcm", folder / "shown.pgm"
    source.write_bytes(drawn.file(ExplicitVRLittleEndian))
    options = (
        ("+Wl", "1", "+Mv") if "VOILUTSequence" in drawn.tags else ("+Wi", "1") if "WindowWidth" in drawn.tags else ()
    )
    done = subprocess.run(
        ["dcmj2pnm", "-O", *options, source, target], capture_output=True, text=True, timeout=HUNG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(target)).astype(int)


NO_EXACT = "dcmtk takes LINEAR_EXACT for LINEAR"
WHOLE_NUMBERS = "dcmtk counts rescaled values in whole steps, and may show the highest black"
IDENTITY_DECIDES = "dcmtk lets the shape IDENTITY overrule MONOCHROME1, a pair that PS3.3 C.8.11.3.1.2 does not allow"
TWO_STEPS = "dcmtk rounds down twice where no window is given"


def rules_of(drawn: Drawn) -> set[str]:
    """The rules by which dcmtk may deviate from the standard in this file."""
    tags, rules = drawn.tags, set[str]()
    if tags.get("VOILUTFunction") == "LINEAR_EXACT":
        rules.add(NO_EXACT)
    if float(tags.get("RescaleSlope", 1)) % 1:
        rules.add(WHOLE_NUMBERS)
    if (tags["PhotometricInterpretation"], tags.get("PresentationLUTShape")) == ("MONOCHROME1", "IDENTITY"):
        rules.add(IDENTITY_DECIDES)
    if not {"WindowWidth", "VOILUTSequence"} & tags.keys():
        rules.add(TWO_STEPS)
    return rules


def predicted(drawn: Drawn, rules: set[str], beside: float = 0) -> np.ndarray:
    """(H, W) gray levels by the formulas of PS3.3 C.7.6.3.1.2 and C.11, but for the rules, of values `beside` it."""
    tags, modality = drawn.tags, drawn.modality + beside
    if table := tags.get("VOILUTSequence"):
        outputs = mapped(table, modality)
        gray = outputs / ((1 << int(mapped(table, np.arange(-40000, 70000)).max()).bit_length()) - 1) * 255
    elif "WindowWidth" in tags:
        function = tags.get("VOILUTFunction", "LINEAR")
        gray = windowed(modality, tags, "LINEAR" if NO_EXACT in rules and function == "LINEAR_EXACT" else function)
    else:
        gray = by_bits(drawn)
    shape = tags.get("PresentationLUTShape")
    inverse = shape == "INVERSE" or (
        tags["PhotometricInterpretation"] == "MONOCHROME1" and IDENTITY_DECIDES not in rules
    )
    return 255 - gray if inverse else gray


def windowed(values: np.ndarray, tags: dict[str, Any], function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = float(tags["WindowCenter"]), float(tags["WindowWidth"])
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 255.0, 0.0)
    return np.clip((values - center) / width + 0.5, 0, 1) * 255


def by_bits(drawn: Drawn) -> np.ndarray:
    """Without a window: the highest eight bits that the image uses."""
    if table := drawn.tags.get("ModalityLUTSequence"):
        outputs = drawn.modality.astype(int)
        return outputs >> (int(table[0].LUTDescriptor[2]) - 8)
    places = drawn.values - (-(1 << (drawn.bits - 1)) if drawn.signed else 0)
    gray = places << 1 if drawn.bits == 7 else places >> (drawn.bits - 8)
    return 255 - gray if float(drawn.tags.get("RescaleSlope", 1)) < 0 else gray


def seen(drawn: Drawn) -> np.ndarray:
    """The pixels that both show: dcmtk applies shutters only from presentation states, and shows padding."""
    inside, tags = np.ones(SHAPE, bool), drawn.tags
    if "ShutterShape" in tags:
        rows = slice(tags["ShutterUpperHorizontalEdge"] - 1, tags["ShutterLowerHorizontalEdge"])
        inside[:] = False
        inside[rows, tags["ShutterLeftVerticalEdge"] - 1 : tags["ShutterRightVerticalEdge"]] = True
    inside &= drawn.values != tags.get("PixelPaddingValue", np.nan)
    return inside


def farthest(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left - right).max())


@needs("dcmj2pnm")
@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=files())
def test_random_headers_show_what_dcmtk_shows(drawn: Drawn, tmp_path: Path) -> None:
    shown, rules = seen(drawn), rules_of(drawn)
    theirs = shown_by_dcmtk(drawn, tmp_path)[shown]
    try:
        radiograph = decode_dicom(drawn.file(drawn.syntax))
    except NoContentError:
        event("nothing to see")
        assert np.ptp(predicted(drawn, set())[shown]) < MIN_CONTRAST
        return
    ours = radiograph.pixels.astype(int)[shown]
    assert farthest(ours, predicted(drawn, set())[shown]) <= 1
    if farthest(ours, theirs) > 1:
        event(" and ".join(sorted(rules)))
        assert rules, "dcmtk shows something else, and no rule says why"
        steps = (-1, 1) if WHOLE_NUMBERS in rules else (0,)
        ends = np.sort([predicted(drawn, rules, step)[shown] for step in steps], axis=0)
        within = (theirs >= ends[0] - 2) & (theirs <= ends[-1] + 2)
        assert (within | ((WHOLE_NUMBERS in rules) & (drawn.modality == drawn.modality.max())[shown])).all()
    assert radiograph.pixel_aspect == pytest.approx(np.divide(*drawn.tags.get("ImagerPixelSpacing", (1, 1))))
    assert not radiograph.inverted
