"""Whoever would wait too long is told so at the door, and told when to come back."""

import asyncio
import time

import pytest

from app.errors import OverloadedError
from app.inference import admission
from app.inference.admission import Admission, BatchLatencyModel
from app.settings import MEBIBYTE, Settings

SLOPE, OFFSET = 0.016, 0.007
"""Seconds of one more radiograph, and of a batch of none."""


def measured(*sizes: int) -> BatchLatencyModel:
    latency = BatchLatencyModel()
    for size in sizes:
        latency.observe(size, SLOPE * size + OFFSET)
    return latency


def door(latency: BatchLatencyModel, **changed: object) -> Admission:
    return Admission(Settings.model_validate({"max_batch": 16, **changed}), latency)


def test_pace_is_the_line_through_what_was_measured() -> None:
    latency = measured(1, 16, 4, 8, 16, 2)
    for size in (1, 5, 16):
        assert latency.batch_seconds(size) == pytest.approx(SLOPE * size + OFFSET)
    assert latency.wait_seconds(40, max_batch=16) == pytest.approx(40 * SLOPE + 3 * OFFSET)


def test_batches_of_one_size_are_taken_to_cost_by_the_radiograph() -> None:
    assert measured(8, 8, 8).batch_seconds(16) == pytest.approx(2 * (8 * SLOPE + OFFSET))


def test_pace_follows_a_machine_that_becomes_slower() -> None:
    latency = measured(*[1, 8, 16] * 10)
    for size in [1, 8, 16] * 40:
        latency.observe(size, 3 * (SLOPE * size + OFFSET))
    assert latency.batch_seconds(16) == pytest.approx(3 * (SLOPE * 16 + OFFSET), rel=0.02)


def test_nothing_measured_yet_refuses_nobody() -> None:
    with door(BatchLatencyModel()).admit(1, deadline=0.001) as permit:
        assert permit.radiographs == 1


def test_request_that_would_wait_too_long_is_told_how_long() -> None:
    crowded = door(measured(1, 8, 16), max_wait_seconds=1.0)
    with crowded.admit(1, deadline=30) as permit:
        permit.radiographs = 320
        with pytest.raises(OverloadedError, match="320 radiographs wait") as refusal, crowded.admit(1, deadline=30):
            pass
        wait = 20 * (16 * SLOPE + OFFSET) + SLOPE + OFFSET
        assert refusal.value.retry_after == pytest.approx(wait - 1, abs=1)
    with crowded.admit(1, deadline=30):
        assert crowded.radiographs == 1


def test_own_deadline_counts_when_it_is_shorter() -> None:
    crowded = door(measured(1, 8, 16))
    with crowded.admit(1, deadline=30) as permit:
        permit.radiographs = 10
        with crowded.admit(1, deadline=0.5):
            pass
        with pytest.raises(OverloadedError), crowded.admit(1, deadline=0.1):
            pass


def test_those_who_are_sent_away_are_not_all_called_back_at_once() -> None:
    crowded = door(measured(1, 8, 16), max_wait_seconds=0.5)
    pauses = []
    with crowded.admit(1, deadline=30) as permit:
        permit.radiographs = 64
        for _ in range(200):
            with pytest.raises(OverloadedError) as refusal, crowded.admit(1, deadline=30):
                pass
            pauses.append(refusal.value.retry_after)
    a_second = 1 / (SLOPE + OFFSET / 16)
    for pause in range(2, 4):
        assert pauses.count(pause) == pytest.approx(a_second, rel=0.2)
    assert pauses == sorted(pauses)


def test_two_full_batches_are_welcome_on_the_slowest_machine() -> None:
    latency = BatchLatencyModel()
    for size in (1, 16):
        latency.observe(size, float(size))
    slow = door(latency)
    with slow.admit(1, deadline=60) as permit:
        permit.radiographs = 31
        with slow.admit(1, deadline=60), pytest.raises(OverloadedError), slow.admit(1, deadline=60):
            pass


def test_bytes_and_requests_inside_are_bounded_and_given_back() -> None:
    small = door(BatchLatencyModel(), max_inflight_mib=10, max_pending=2)
    for _ in range(3):
        with small.admit(6 * MEBIBYTE, deadline=1):
            with pytest.raises(OverloadedError, match="6 MiB"), small.admit(6 * MEBIBYTE, deadline=1):
                pass
            with small.admit(1, deadline=1), pytest.raises(OverloadedError, match="2 requests"), small.admit(1, 1):
                pass
    assert (small.radiographs, small.size) == (0, 0)


def test_radiographs_of_jobs_are_part_of_the_predicted_wait() -> None:
    queued = 64
    crowded = Admission(Settings(max_batch=16), measured(1, 8, 16), queued=lambda: queued)
    with pytest.raises(OverloadedError, match="64 radiographs wait"):
        crowded.require_time(30)
    queued = 1
    crowded.require_time(30)


def test_pauses_that_were_told_in_any_order_are_forgotten_when_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    crowded = door(measured(1, 8, 16), max_wait_seconds=0.5)
    with crowded.admit(1, deadline=30) as permit:
        for radiographs in (600, 64, 64, 64):  # the longest pause first
            permit.radiographs = radiographs
            with pytest.raises(OverloadedError):
                crowded.require_time(30)
        longest = max(crowded.retry_times)
        now = longest - 0.5
        permit.radiographs = 64
        with pytest.raises(OverloadedError):
            crowded.require_time(30)
        assert sorted(crowded.retry_times)[0] >= longest
        assert len(crowded.retry_times) == 2


def test_place_that_is_given_back_is_its_own_and_not_an_equal_one() -> None:
    both = door(BatchLatencyModel())
    with both.admit(5, deadline=1) as first:
        with both.admit(5, deadline=1):
            pass
        first.radiographs = 7
        assert both.radiographs == 7


def test_senders_of_studies_wait_for_a_place_and_are_told_when_none_becomes_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "SENDER_WAIT_SECONDS", 0.1)

    async def send() -> None:
        small = door(BatchLatencyModel(), max_inflight_mib=40, max_upload_mib=10)
        async with small.admit_sender(), small.admit_sender():
            assert (small.size, small.radiographs) == (20 * MEBIBYTE, 0)
            with small.admit(10 * MEBIBYTE, deadline=1):  # the other half is for callers
                pass
            with pytest.raises(OverloadedError) as refusal:
                await small.admit_sender().__aenter__()
            assert refusal.value.limit == "senders"
        async with small.admit_sender():
            assert small.size == 10 * MEBIBYTE
        assert small.size == 0

    asyncio.run(send())
