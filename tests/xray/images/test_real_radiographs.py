"""Real computed radiographs: a lower leg and a chest, with dark bone in the file, white borders and 10 and 15 bits.

They come from pydicom's test data, so no download is needed.
"""

import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGExtended12Bit

from tests.dicom_files import recoded, shown_by_dcmtk
from tests.tools import needs
from xray.errors import OutOfScopeError
from xray.images.dicom.decode import decode_dicom

SYNTAXES = ("UNCR", "UNCI", "J2KR", "J2KI")
"""Each image is stored plainly (UNC) or as JPEG 2000 (J2K), after compression with loss (I) or without (R)."""
TIBIA = np.s_[900:1100, 760:860]
AIR = np.s_[900:1100, 505:535]


def real(name: str) -> bytes:
    return (files("data_store") / "data" / f"{name}.dcm").read_bytes()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_tibia_is_brighter_than_the_air_beside_it(syntax: str) -> None:
    leg = decode_dicom(real(f"RG3_{syntax}"))
    assert leg.pixels[TIBIA].mean() > leg.pixels[AIR].mean() + 80
    assert not leg.inverted


def test_every_syntax_of_an_image_decodes_to_the_same_picture() -> None:
    plain, once_lossy, reversible, irreversible = (decode_dicom(real(f"RG3_{each}")).pixels for each in SYNTAXES)
    assert (plain == reversible).all()
    assert (once_lossy == irreversible).all()
    difference = np.abs(plain.astype(int) - irreversible)
    assert 0 < difference.mean() < 1


@needs("dcmcjpeg")
def test_jpeg_extended_of_the_leg_keeps_white_what_is_white(tmp_path: Path) -> None:
    """The codec turns its white border of 1023 into 1024 and more."""
    coded = recoded("dcmcjpeg", real("RG3_UNCR"), tmp_path, "+ee")
    assert dcmread(io.BytesIO(coded)).file_meta.TransferSyntaxUID == JPEGExtended12Bit
    plain, lossy = (decode_dicom(each).pixels.astype(int) for each in (real("RG3_UNCR"), coded))
    assert np.abs(plain - lossy).max() <= 12
    assert np.abs(plain - lossy).mean() < 1


@needs("dcmcjpeg", "dcmcjpls", "dcmcrle")
@pytest.mark.parametrize(
    ("tool", "options"), [("dcmcjpeg", ("+e1",)), ("dcmcjpeg", ("+el",)), ("dcmcjpls", ("+el",)), ("dcmcrle", ())]
)
def test_leg_that_dcmtk_compressed_without_loss_is_the_same(
    tool: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    coded = recoded(tool, real("RG3_UNCR"), tmp_path, *options)
    assert (decode_dicom(coded).pixels == decode_dicom(real("RG3_UNCR")).pixels).all()


@needs("dcmj2pnm")
def test_leg_is_what_dcmtk_shows(tmp_path: Path) -> None:
    ours = decode_dicom(real("RG3_UNCR")).pixels.astype(int)
    assert np.abs(ours - shown_by_dcmtk(real("RG3_UNCR"), tmp_path)).max() <= 1


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_chest_is_out_of_scope(syntax: str) -> None:
    with pytest.raises(OutOfScopeError, match=r"\(0018,0015\) Body Part Examined is CHEST"):
        decode_dicom(real(f"RG1_{syntax}"))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_lungs_are_darker_than_the_spine_where_the_body_part_is_not_named(syntax: str) -> None:
    data = real(f"RG1_{syntax}")
    unnamed = decode_dicom(data.replace(b"CHEST ", b"LIMB  "))
    height, width = unnamed.pixels.shape
    lungs = unnamed.pixels[height // 3 : height // 2, [width // 4, 3 * width // 4]].mean()
    assert unnamed.pixels[height // 3 : height // 2, width // 2].mean() > lungs + 30
    assert unnamed.pixel_aspect == 1
