"""`python -m benchmarks.soak hostile|reloads|stops`: abuses a running service and counts lost and wrong answers.

hostile   a fifth of the requests are hostile files, disconnecting callers and slow senders
reloads   the artifacts are reloaded again and again under load
stops     each process gets SIGTERM under load, and the next one starts

Each subcommand prints a line of counts, and exits with status 1 if a count of `FAILURES` is not 0.
"""

import asyncio
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import httpx
import tyro
from tqdm import tqdm

from benchmarks.callers import ATTACKS, CALLER_COUNT, REPLY_TIMEOUT_SECONDS, KnownImage, create_client, send_image
from benchmarks.servers import ADDRESS, OSTEON, ROOT, resident_bytes, run_server
from benchmarks.serving import load_pngs
from xray.engines.registry import load_engine
from xray.images.decoding.decode import decode_radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

CHECKPOINT = ROOT / "artifacts" / "starter" / "checkpoint"
MAX_GROWTH = 0.05
"""Maximum growth of the resident memory, as a share."""
HOSTILE_SHARE = 0.2
"""Share of hostile requests among all requests."""
SETTLE_SECONDS = 5.0
"""Pause after the load in seconds, until the last requests have ended."""

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Hostile:
    """Soak the service with requests, of which a fifth are hostile."""

    requests: int = 10_000


@dataclass(frozen=True)
class Reloads:
    """Reload the service's artifacts again and again under load."""

    reloads: int = 200


@dataclass(frozen=True)
class Stops:
    """Stop the service under load and start the next one, repeatedly."""

    stops: int = 50


Command = (
    Annotated[Hostile, tyro.conf.subcommand("hostile")]
    | Annotated[Reloads, tyro.conf.subcommand("reloads")]
    | Annotated[Stops, tyro.conf.subcommand("stops")]
)


Counts = Counter[str]
"""Number of requests by outcome."""
FAILURES = {"lost", "wrong", "hung", "unready", "grown", "unclean end"}
"""Outcomes that must not occur."""


def main() -> None:
    """Run the subcommand of the soak test, print the counts, and exit with status 1 if there are failures."""
    options: Hostile | Reloads | Stops = tyro.cli(Command, prog="python -m benchmarks.soak")
    known = predict_known_images()
    counts: Counts = Counter()
    match options:
        case Hostile():
            with run_server(OSTEON, CHECKPOINT) as process:
                asyncio.run(send_hostile_requests(known, options.requests, process, counts))
                stop(process, counts)
        case Reloads():
            with run_server(OSTEON, CHECKPOINT) as process:
                asyncio.run(reload_under_load(known, options.reloads, process, counts))
                stop(process, counts)
        case Stops():
            for _ in tqdm(range(options.stops), unit="stop"):
                with run_server(OSTEON, CHECKPOINT) as process:
                    asyncio.run(stop_under_load(known, process, counts))
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    failed = sorted(name for name in FAILURES if counts[name])
    sys.exit(f"These counts must be 0: {', '.join(failed)}" if failed else 0)


def predict_known_images() -> list[KnownImage]:
    """Return the images of the soak test with the probabilities that a predictor computes without a service."""
    checkpoint = load_checkpoint(CHECKPOINT)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))
    return [
        KnownImage(image, OSTEON.encode(image), predictor.predict([decode_radiograph(image)]).probability)
        for image in load_pngs()[0]
    ]


async def send_hostile_requests(known: Sequence[KnownImage], requests: int, process: Process, counts: Counts) -> None:
    """Send the soak's requests, a fifth of them hostile; compare the memory after the first tenth and the last one."""
    chance = random.Random(0)
    progress = tqdm(total=requests, unit="request")
    left = iter(range(requests))

    async with create_client() as http:

        async def call() -> None:
            for number in left:
                each = chance.choice(known)
                attack = chance.choice(ATTACKS) if chance.random() < HOSTILE_SHARE else send_image
                async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
                    counts[await attack(http, each)] += 1
                if number == requests // 10:
                    before.append(resident_bytes(process))
                progress.update()

        before: list[int] = []
        try:
            await asyncio.gather(*(call() for _ in range(CALLER_COUNT)))
        except TimeoutError:
            counts["hung"] += 1
        progress.close()
        await check_settled(http, process, before[0], counts)


async def reload_under_load(known: Sequence[KnownImage], count: int, process: Process, counts: Counts) -> None:
    """Reload the artifacts in the soak test; compare the memory after the first tenth of the reloads and the last."""
    over = asyncio.Event()
    async with create_client() as http:
        callers = [asyncio.create_task(send_until(over, http, known, place, counts)) for place in range(CALLER_COUNT)]
        before = 0
        for number in tqdm(range(count), unit="reload"):
            reply = await http.post(f"{ADDRESS}/admin/reload")
            counts["reloads" if reply.status_code == httpx.codes.OK else "wrong"] += 1
            if number == count // 10:
                before = resident_bytes(process)
        over.set()
        await asyncio.gather(*callers)
        await check_settled(http, process, before, counts)


async def stop_under_load(known: Sequence[KnownImage], process: Process, counts: Counts) -> None:
    """Send SIGTERM in the soak test: every accepted request must get its reply, and the exit status must be 0."""
    over = asyncio.Event()
    async with create_client() as http:
        callers = [asyncio.create_task(send_until(over, http, known, place, counts)) for place in range(CALLER_COUNT)]
        await asyncio.sleep(random.uniform(0.5, 1.5))
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, REPLY_TIMEOUT_SECONDS)
        over.set()
        await asyncio.gather(*callers)
    stop(process, counts)


def stop(process: Process, counts: Counts) -> None:
    """Stop the soak test's process unless it has ended, and count whether its exit status is 0."""
    process.terminate()
    counts["clean ends" if process.wait(REPLY_TIMEOUT_SECONDS) == 0 else "unclean end"] += 1


async def send_until(
    over: asyncio.Event, http: httpx.AsyncClient, known: Sequence[KnownImage], place: int, counts: Counts
) -> None:
    """Send every `CALLER_COUNT`th image of the soak test, from `place` on, until the event is set."""
    while not over.is_set():
        outcome = await send_image(http, known[place % len(known)])
        counts[outcome] += 1
        place += CALLER_COUNT
        if outcome in ("connection refused", "refused"):
            await asyncio.sleep(0.1)


async def check_settled(http: httpx.AsyncClient, process: Process, before: int, counts: Counts) -> None:
    """Check after a soak that no request is pending, the service is ready, and its memory has not grown."""
    await asyncio.sleep(SETTLE_SECONDS)
    pending = re.search(r"^osteon_pending_requests (\S+)", (await http.get(f"{ADDRESS}/metrics")).text, re.MULTILINE)
    counts["hung"] += int(float(pending[1])) if pending else 1
    counts["unready"] += (await http.get(f"{ADDRESS}/health/ready")).status_code != httpx.codes.OK
    growth = resident_bytes(process) / before - 1
    print(f"resident memory: {before >> 20} MiB, at the end {growth:+.1%}")
    counts["grown"] += growth > MAX_GROWTH


if __name__ == "__main__":
    main()
