"""What a dataset notes of its images is read as it was meant, or named."""

from pathlib import Path

import pytest

from tests.phantoms import write_dataset
from training.dataset.annotations import Annotation, Box, read_annotations, warn_unused
from xray.errors import DatasetError
from xray.mura.studies import read_mura

IMAGE = "MURA-v1.1/train/XR_HAND/patient00000/study1_negative/image1.png"


def annotated(folder: Path, text: str, encoding: str = "utf-8") -> dict[str, Annotation]:
    (folder / "annotations.csv").write_bytes(text.encode(encoding))
    return dict(read_annotations(folder))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize(
    "text",
    [
        f'image,hardware,boxes\n{IMAGE},1,"[[0.1, 0.2, 0.3, 0.4]]"\n',
        f'image;hardware;boxes\r\n{IMAGE};1.0;"[[0.1, 0.2, 0.3, 0.4]]"\r\n',
        "boxes\thardware\timage\n[[0.1, 0.2, 0.3, 0.4]]\t1\t" + IMAGE.replace("/", "\\"),
    ],
)
def test_annotations_of_any_program_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    assert annotated(tmp_path, text, encoding) == {IMAGE: Annotation(True, (Box(0.1, 0.2, 0.3, 0.4),))}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"path,hardware\n{IMAGE},1\n", "one of them `image`"),
        (f"image,hardware\n{IMAGE},yes\n", "hardware is 'yes'; write 0 or 1"),
        (f'image,boxes\n{IMAGE},"[[120, 40, 60, 80]]"\n', "a box extends beyond the image; write shares"),
        (f'image,boxes\n{IMAGE},"[[0.1, 0.2]]"\n', "the boxes cannot be read"),
        (f"image,hardware\n{IMAGE},1\n{IMAGE},0\n", "contradict each other"),
    ],
)
def test_annotation_that_cannot_be_meant_is_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        annotated(tmp_path, text)


def test_annotations_of_images_that_are_not_there_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_dataset(tmp_path / "Renamed", studies=4)
    annotations = annotated(root, f"image,hardware\n{IMAGE},1\nRenamed/valid/XR_LEG/p/s/image1.png,1\n")
    warn_unused(annotations, "train", read_mura(root, "train"))
    (line,) = caplog.messages
    assert line.startswith("1 images of annotations.csv are not in train")
    assert IMAGE in line
