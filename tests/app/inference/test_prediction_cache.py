"""Equal images cost one decode and one pass, and nobody's leaving takes the answer from the others."""

import asyncio
import threading
import time

import httpx
import pytest

from app.inference.single_flight import SingleFlight
from app.replica import Replica, assemble
from tests.app.conftest import held, metric, png, serving
from tests.phantoms import draw_phantom

PHANTOM = png(draw_phantom(seed=11))


def source(client: httpx.Client, name: str) -> float:
    return metric(client, f'osteon_answers_total{{source="{name}"}}')


def test_cam_after_classify_needs_no_second_pass_and_says_the_same(service: Replica) -> None:
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        classified = client.post("/classify", files={"file": PHANTOM})
        passes = metric(client, "osteon_batch_size_count")
        drawn = client.post("/cam", files={"file": PHANTOM})
        assert float(drawn.headers["X-Probability"]) == pytest.approx(classified.json()["probability"], abs=1e-6)
        assert metric(client, "osteon_batch_size_count") == passes
        assert (source(client, "pass"), source(client, "kept")) == (1, 1)


def test_answers_that_are_kept_are_bounded_by_their_bytes(service: Replica) -> None:
    small = assemble(service.settings.model_copy(update={"result_cache_mib": 1}), service.predictor.bundle)
    with serving(small) as client:
        for seed in range(6):
            client.post("/classify", files={"file": png(draw_phantom(seed, height=700, width=500))})
            assert metric(client, "osteon_kept_bytes") <= 1 << 20
        client.post("/classify", files={"file": png(draw_phantom(0, height=1100, width=1000))})  # alone beyond it
        latest = png(draw_phantom(5, height=700, width=500))
        client.post("/classify", files={"file": latest})
        assert source(client, "kept") == 1


def test_callers_of_one_image_share_its_pass(service: Replica) -> None:
    engine, held_service = held(service)
    with serving(held_service) as client:
        replies: list[httpx.Response] = []
        callers = [
            threading.Thread(target=lambda: replies.append(client.post("/classify", files={"file": PHANTOM})))
            for _ in range(5)
        ]
        for caller in callers:
            caller.start()
        while metric(client, "osteon_pending_requests") < 5:
            time.sleep(0.01)
        time.sleep(0.1)
        engine.gate.set()
        for caller in callers:
            caller.join()
        assert len({reply.json()["probability"] for reply in replies}) == 1
        assert metric(client, "osteon_batch_size_sum") == 1


def test_the_first_caller_may_leave_and_the_second_still_gets_the_answer() -> None:
    async def scenario() -> tuple[str, int]:
        flight: SingleFlight[str] = SingleFlight()
        made, gate = [], asyncio.Event()

        async def make() -> str:
            made.append(1)
            await gate.wait()
            return "answer"

        first, second = (asyncio.create_task(flight.do("key", make)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await second, len(made)

    assert asyncio.run(scenario()) == ("answer", 1)


def test_work_ends_with_the_last_who_waits_and_a_newcomer_starts_it_anew() -> None:
    async def scenario() -> list[str]:
        flight: SingleFlight[str] = SingleFlight()
        events: list[str] = []

        async def make() -> str:
            events.append("begun")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                events.append("ended")
                raise
            return "never"

        for _ in range(2):
            caller = asyncio.create_task(flight.do("key", make))
            await asyncio.sleep(0.01)
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
            await asyncio.sleep(0)
            assert "key" not in flight
        return events

    assert asyncio.run(scenario()) == ["begun", "ended"] * 2


def test_an_error_is_everyones_and_is_not_kept() -> None:
    async def scenario() -> tuple[list[type], str]:
        flight: SingleFlight[str] = SingleFlight()

        async def fail() -> str:
            await asyncio.sleep(0)
            raise ValueError("bad image")

        async def succeed() -> str:
            return "answer"

        errors = await asyncio.gather(*(flight.do("key", fail) for _ in range(3)), return_exceptions=True)
        return [type(error) for error in errors], await flight.do("key", succeed)

    assert asyncio.run(scenario()) == ([ValueError] * 3, "answer")
