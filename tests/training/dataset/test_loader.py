"""What a step sees is a function of seed, epoch and place, and classes come out even."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch

from tests.phantoms import draw_phantom
from training.dataset.annotations import Annotation, Box
from training.dataset.image_cache import Canvases, decode_once
from training.dataset.loader import Bag, BatchLoader, StudyBags, Views, collate
from training.dataset.sampling import SampledStudy, loss_weights, plan_epoch, sampling_probabilities
from training.options import TrainOptions
from xray.errors import InputError
from xray.images.preprocess import PreprocessSpec
from xray.mura.studies import MuraRecord, Study, records_of

Sampling = Literal["balanced", "natural"]
Weighting = Literal["body-part", "none"]
OPTIONS = TrainOptions(Path("data"), Path("out"), size=32, batch_studies=4)
LOPSIDED = {("XR_HAND", 0): 30, ("XR_HAND", 1): 5, ("XR_LEG", 0): 4, ("XR_LEG", 1): 12, ("XR_HIP", 0): 7}
"""Studies of each body part and target; hips are all normal."""
VIEWS = 6


def study(body_part: str, patient: int, target: int, files: tuple[Path, ...] = (Path("nowhere.png"),)) -> Study:
    return Study(
        tuple(MuraRecord(file.name, file, body_part, f"patient{patient:05d}", "study1", target) for file in files)
    )


@pytest.fixture(scope="module")
def lopsided() -> list[Study]:
    """Studies without files, many more normal than abnormal."""
    groups = [group for group, count in LOPSIDED.items() for _ in range(count)]
    return [study(part, number, target) for number, (part, target) in enumerate(groups)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    """A study of one view and one of six, all different."""
    folder = tmp_path_factory.mktemp("drawn")
    files = tuple(folder / f"image{number}.png" for number in range(1 + VIEWS))
    for number, file in enumerate(files):
        cv2.imwrite(str(file), draw_phantom(seed=number))
    return [study("XR_HAND", 0, 0, files[:1]), study("XR_HAND", 1, 1, files[1:])]


FINDING = {"image3.png": Annotation(hardware=None, boxes=(Box(0.4, 0.4, 0.1, 0.1),))}
"""In one of the six views of the abnormal study."""


def bag(drawn: list[Study], draw: SampledStudy, training: bool = True, options: TrainOptions = OPTIONS) -> Bag:
    views = Views(canvases_of(tuple(drawn), options.preprocess), FINDING)
    return StudyBags(drawn, [1.0, 2.0], views, options, training)[draw]


@cache
def canvases_of(studies: tuple[Study, ...], spec: PreprocessSpec) -> Canvases:
    """Decoded into a folder that is gone at once; the open file stays."""
    with TemporaryDirectory() as folder:
        return decode_once(records_of(studies), spec, Path(folder) / "canvases")


def shown(drawn: list[Study], draw: SampledStudy, options: TrainOptions = OPTIONS) -> bytes:
    """The canvases of a training bag."""
    return bag(drawn, draw, options=options).pixels_n1SS.numpy().tobytes()


def test_balanced_sampling_draws_normal_and_abnormal_equally_often(lopsided: list[Study]) -> None:
    draws = [
        draw.study
        for epoch in range(200)
        for batch in plan_epoch(lopsided, OPTIONS, epoch, processes=1)
        for draw in batch
    ]
    counts = Counter(lopsided[number].target for number in draws)
    # Five standard deviations of as many fair coins.
    assert abs(counts[1] - len(draws) / 2) < 5 * np.sqrt(len(draws) / 4)
    assert set(draws) == set(range(len(lopsided)))


@pytest.mark.parametrize("sampling", ["balanced", "natural"])
def test_chances_of_all_studies_add_up_to_one_and_are_equal_within_a_class(
    sampling: Sampling, lopsided: list[Study]
) -> None:
    chances = sampling_probabilities(lopsided, replace(OPTIONS, sampling=sampling))
    assert chances.sum() == pytest.approx(1)
    for target in (0, 1):
        assert len({chance for each, chance in zip(lopsided, chances, strict=True) if each.target == target}) == 1


def test_natural_sampling_draws_each_study_at_most_once(lopsided: list[Study]) -> None:
    plan = plan_epoch(lopsided, replace(OPTIONS, sampling="natural"), epoch=0, processes=1)
    draws = [draw.study for batch in plan for draw in batch]
    assert len(draws) == len(set(draws))
    # Only what does not fill a batch of four is left out.
    assert len(draws) == len(lopsided) // 4 * 4


def test_a_plan_depends_on_seed_and_epoch_only(lopsided: list[Study]) -> None:
    plan = plan_epoch(lopsided, OPTIONS, 3, processes=1)
    elsewhere = replace(OPTIONS, out=Path("elsewhere"), workers=4, learning_rate=1.0, size=64)
    assert plan_epoch(lopsided, elsewhere, 3, processes=1) == plan
    for seed, epoch in ((0, 4), (1, 3)):
        other = plan_epoch(lopsided, replace(OPTIONS, seed=seed), epoch, processes=1)
        assert [draw.study for batch in other for draw in batch] != [draw.study for batch in plan for draw in batch]


def test_places_of_an_epoch_are_all_different(lopsided: list[Study]) -> None:
    draws = [draw for batch in plan_epoch(lopsided, OPTIONS, 2, processes=1) for draw in batch]
    assert [draw.place for draw in draws] == list(range(len(draws)))
    assert {draw.epoch for draw in draws} == {2}


def test_two_processes_see_together_what_one_with_twice_the_batch_sees(lopsided: list[Study]) -> None:
    twice = replace(OPTIONS, batch_studies=2 * OPTIONS.batch_studies)
    assert plan_epoch(lopsided, OPTIONS, 0, processes=2) == plan_epoch(lopsided, twice, 0, processes=1)


def test_a_batch_that_is_not_full_is_left_out_unless_it_is_the_only_one(lopsided: list[Study]) -> None:
    assert {len(batch) for batch in plan_epoch(lopsided, OPTIONS, 0, processes=1)} == {4}
    assert [len(batch) for batch in plan_epoch(lopsided[:3], OPTIONS, 0, processes=1)] == [3]


def test_training_takes_at_most_max_views_of_a_study_and_none_twice(drawn: list[Study]) -> None:
    plain = replace(OPTIONS, augment=False, max_views=4)
    taken = set()
    for place in range(20):
        canvases = bag(drawn, SampledStudy(0, place, study=1), options=plain).pixels_n1SS
        different = {canvas.numpy().tobytes() for canvas in canvases}
        assert len(canvases) == len(different) == 4
        taken |= different
    assert len(taken) == VIEWS


def test_validation_takes_all_views_in_their_order_and_changes_none(drawn: list[Study]) -> None:
    whole = bag(drawn, SampledStudy(0, 0, study=1), training=False)
    plain = replace(OPTIONS, augment=False, max_views=1)
    single = [study("XR_HAND", 1, 1, (each.file,)) for each in drawn[1].records]
    alone = [bag([each], SampledStudy(0, 0, 0), options=plain).pixels_n1SS for each in single]
    assert (whole.target, whole.weight) == (1.0, 2.0)
    torch.testing.assert_close(whole.pixels_n1SS, torch.cat(alone))


def test_augmentation_is_a_function_of_seed_epoch_and_place(drawn: list[Study]) -> None:
    draw = SampledStudy(epoch=2, place=5, study=0)
    first = shown(drawn, draw)
    others = [
        shown(drawn, replace(draw, epoch=3)),
        shown(drawn, replace(draw, place=6)),
        shown(drawn, draw, replace(OPTIONS, seed=1)),
    ]
    assert first not in others
    assert shown(drawn, draw) == first


def test_a_box_marks_the_cells_of_its_view_and_of_no_other(drawn: list[Study]) -> None:
    fine = replace(OPTIONS, size=64, map_stride=16)
    inside = bag(drawn, SampledStudy(0, 0, study=1), training=False, options=fine).inside_nhw
    assert inside.shape == (VIEWS, 4, 4)
    marked = [record.path in FINDING for record in drawn[1].records]
    assert inside.flatten(1).any(1).tolist() == marked
    assert inside[marked.index(True), 1:3, 1:3].any()


def test_a_window_of_an_abnormal_study_is_abnormal_where_it_shows_the_finding(drawn: list[Study]) -> None:
    windows = replace(OPTIONS, size=128, window=32, map_stride=16)
    bags = [bag(drawn, SampledStudy(0, place, study=1), options=windows) for place in range(20)]
    for each in bags:
        assert each.pixels_n1SS.shape == (1, 1, 32, 32)
        assert each.target == float(each.inside_nhw.any())
    assert {each.target for each in bags} == {0.0, 1.0}
    assert all(bag(drawn, SampledStudy(0, place, study=0), options=windows).target == 0 for place in range(5))


def test_a_counterfactual_study_has_the_label_of_what_it_shows(drawn: list[Study]) -> None:
    options = replace(OPTIONS, size=128, map_stride=16, counterfactual=1.0)
    bags = [bag(drawn, SampledStudy(0, place, study=0), options=options) for place in range(20)]
    assert all(each.target == float(each.inside_nhw.any()) for each in bags)
    assert {each.target for each in bags} == {0.0, 1.0}


def test_abnormal_radiograph_whose_finding_has_no_box_is_left_as_it_is(drawn: list[Study]) -> None:
    options = replace(OPTIONS, size=128, counterfactual=1.0, max_views=1)
    targets = [bag(drawn, SampledStudy(0, place, study=1), options=options).target for place in range(20)]
    assert targets.count(1.0) > 10  # five of the six views have no box


def test_appearance_varies_only_in_training(drawn: list[Study]) -> None:
    options = replace(OPTIONS, augment=False, vary_appearance=True)
    draws = [SampledStudy(0, place, study=0) for place in range(8)]
    assert len({shown(drawn, draw, options) for draw in draws}) > 4
    whole = [bag(drawn, draw, training=False, options=options).pixels_n1SS for draw in draws]
    assert all(torch.equal(each, whole[0]) for each in whole)


def test_radiographs_of_other_datasets_have_their_share_and_are_normal() -> None:
    own = [study("XR_HAND", number, number % 2) for number in range(30)]
    other = [
        Study((MuraRecord("Knees/a.png", Path("a.png"), "XR_KNEE", f"patient{n}", "study1", 0),)) for n in range(500)
    ]
    options = replace(OPTIONS, normals=(Path("Knees"),), normals_share=0.25)
    probabilities = sampling_probabilities(own + other, options)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[30:].sum() == pytest.approx(0.25)
    assert probabilities[:30:2].sum() == pytest.approx(probabilities[1:30:2].sum())
    assert sum(len(batch) for batch in plan_epoch(own + other, options, 0, processes=1)) == 40
    np.testing.assert_allclose(sampling_probabilities(own, options), 1 / 30)  # validation has its own studies only


@pytest.mark.parametrize("changes", [{"normals": (Path("Knees"),)}, {"normals_share": 0.5}, {"normals_share": 1.0}])
def test_share_without_datasets_and_datasets_without_share_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--normals-share is"):
        replace(OPTIONS, **changes)


def test_a_batch_keeps_studies_apart(drawn: list[Study]) -> None:
    one, six = (bag(drawn, SampledStudy(0, 0, number), training=False) for number in (0, 1))
    batch = collate([six, one])
    assert batch.views == (VIEWS, 1)
    assert batch.pixels_N1SS.dtype == torch.uint8
    torch.testing.assert_close(batch.pixels_N1SS, torch.cat([six.pixels_n1SS, one.pixels_n1SS]))
    assert (batch.targets_B.tolist(), batch.weights_B.tolist()) == ([1.0, 0.0], [2.0, 1.0])


@pytest.mark.parametrize("sampling", ["balanced", "natural"])
@pytest.mark.parametrize("weighting", ["body-part", "none"])
def test_a_drawn_study_weighs_one_on_average(sampling: Sampling, weighting: Weighting, lopsided: list[Study]) -> None:
    options = replace(OPTIONS, sampling=sampling, loss_weights=weighting)
    assert sampling_probabilities(lopsided, options) @ loss_weights(lopsided, options) == pytest.approx(1)


@pytest.mark.parametrize("sampling", ["balanced", "natural"])
def test_weighted_draws_of_a_body_part_are_half_normal_half_abnormal(sampling: Sampling, lopsided: list[Study]) -> None:
    options = replace(OPTIONS, sampling=sampling)
    counted: Counter[tuple[str, int]] = Counter()
    for each, chance, weight in zip(
        lopsided, sampling_probabilities(lopsided, options), loss_weights(lopsided, options), strict=True
    ):
        counted[each.body_part, each.target] += chance * weight
    for part in ("XR_HAND", "XR_LEG"):
        assert counted[part, 0] == pytest.approx(counted[part, 1])
    assert counted["XR_HIP", 0] > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_feed_follows_each_plan_in_turn(drawn: list[Study], workers: int) -> None:
    options = replace(OPTIONS, workers=workers)
    bags = StudyBags(drawn, [1.0, 2.0], Views(canvases_of(tuple(drawn), options.preprocess), FINDING), options, True)
    feed = BatchLoader(bags, options)
    for epoch, order in enumerate(([0, 1, 1], [1, 0])):
        plan = [[SampledStudy(epoch, place, study)] for place, study in enumerate(order)]
        assert [float(batch.weights_B[0]) for batch in feed.batches(plan)] == [1.0 + study for study in order]
