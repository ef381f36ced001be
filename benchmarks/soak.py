"""`python -m benchmarks.soak hostile|reloads|stops`: abuse a running service and count what is lost or wrong.

hostile   requests of which a fifth are hostile files, callers who hang up, and slow senders
reloads   artifacts exchanged again and again while callers wait for answers
stops     SIGTERM under load, process after process

Each ends with a line of counts and with status 1 if one of them should be 0 and is not.
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

from benchmarks.callers import ATTACKS, CALLERS, HUNG_SECONDS, Known, ask, client
from benchmarks.servers import ADDRESS, OSTEON, ROOT, resident, serving
from benchmarks.serving import pngs
from xray.engines.registry import load_engine
from xray.images.decoding.decode import decode_radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

CHECKPOINT = ROOT / "artifacts" / "starter" / "checkpoint"
GROWTH = 0.05
"""Share by which resident memory may grow."""
HOSTILE_SHARE = 0.2
SETTLE_SECONDS = 5.0

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Hostile:
    """A fifth of the requests are hostile."""

    requests: int = 10_000


@dataclass(frozen=True)
class Reloads:
    """Callers ask while the artifacts are read again and again."""

    reloads: int = 200


@dataclass(frozen=True)
class Stops:
    """Callers ask while the process is told to stop; then the next one starts."""

    stops: int = 50


Command = (
    Annotated[Hostile, tyro.conf.subcommand("hostile")]
    | Annotated[Reloads, tyro.conf.subcommand("reloads")]
    | Annotated[Stops, tyro.conf.subcommand("stops")]
)


Bag = Counter[str]
"""How many requests came to what."""
BAD = {"lost", "wrong", "hung", "unready", "grown", "unclean end"}


def main() -> None:
    options: Hostile | Reloads | Stops = tyro.cli(Command, prog="python -m benchmarks.soak")
    known, bag = known_answers(), Counter[str]()
    match options:
        case Hostile():
            with serving(OSTEON, CHECKPOINT) as process:
                asyncio.run(hostile(known, options.requests, process, bag))
                stop(process, bag)
        case Reloads():
            with serving(OSTEON, CHECKPOINT) as process:
                asyncio.run(reloads(known, options.reloads, process, bag))
                stop(process, bag)
        case Stops():
            for _ in tqdm(range(options.stops), unit="stop"):
                with serving(OSTEON, CHECKPOINT) as process:
                    asyncio.run(stop_under_load(known, process, bag))
    print(", ".join(f"{name}: {count}" for name, count in sorted(bag.items())))
    bad = sorted(name for name in BAD if bag[name])
    sys.exit(f"not as it should be: {', '.join(bad)}" if bad else 0)


def known_answers() -> list[Known]:
    """Requests with the probabilities that a predictor without a service gives their images."""
    checkpoint = load_checkpoint(CHECKPOINT)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))
    return [
        Known(image, OSTEON.ask(image), predictor.predict([decode_radiograph(image)]).probability)
        for image in pngs()[0]
    ]


async def hostile(known: Sequence[Known], requests: int, process: Process, bag: Bag) -> None:
    """A fifth of the callers mean no good; memory is looked at after the first tenth of the requests and the last."""
    chance, progress = random.Random(0), tqdm(total=requests, unit="request")
    left = iter(range(requests))

    async with client() as http:

        async def call() -> None:
            for number in left:
                each = chance.choice(known)
                attack = chance.choice(ATTACKS) if chance.random() < HOSTILE_SHARE else ask
                async with asyncio.timeout(HUNG_SECONDS):
                    bag[await attack(http, each)] += 1
                if number == requests // 10:
                    before.append(resident(process))
                progress.update()

        before: list[int] = []
        try:
            await asyncio.gather(*(call() for _ in range(CALLERS)))
        except TimeoutError:
            bag["hung"] += 1
        progress.close()
        await settle(http, process, before[0], bag)


async def reloads(known: Sequence[Known], count: int, process: Process, bag: Bag) -> None:
    """Exchange the artifacts while callers ask; memory is looked at after the first tenth and the last."""
    over = asyncio.Event()
    async with client() as http:
        callers = [asyncio.create_task(ask_until(over, http, known, place, bag)) for place in range(CALLERS)]
        before = 0
        for number in tqdm(range(count), unit="reload"):
            reply = await http.post(f"{ADDRESS}/admin/reload")
            bag["reloads" if reply.status_code == httpx.codes.OK else "wrong"] += 1
            if number == count // 10:
                before = resident(process)
        over.set()
        await asyncio.gather(*callers)
        await settle(http, process, before, bag)


async def stop_under_load(known: Sequence[Known], process: Process, bag: Bag) -> None:
    """Tell the process to stop while callers ask; whoever was let in gets an answer, and it ends with status 0."""
    over = asyncio.Event()
    async with client() as http:
        callers = [asyncio.create_task(ask_until(over, http, known, place, bag)) for place in range(CALLERS)]
        await asyncio.sleep(random.uniform(0.5, 1.5))
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, HUNG_SECONDS)
        over.set()
        await asyncio.gather(*callers)
    stop(process, bag)


def stop(process: Process, bag: Bag) -> None:
    """Tell a process to end, unless it has ended, and see how it does."""
    process.terminate()
    bag["clean ends" if process.wait(HUNG_SECONDS) == 0 else "unclean end"] += 1


async def ask_until(over: asyncio.Event, http: httpx.AsyncClient, known: Sequence[Known], place: int, bag: Bag) -> None:
    while not over.is_set():
        outcome = await ask(http, known[place % len(known)])
        bag[outcome] += 1
        place += CALLERS
        if outcome in ("not let in", "refused"):
            await asyncio.sleep(0.1)


async def settle(http: httpx.AsyncClient, process: Process, before: int, bag: Bag) -> None:
    """Afterwards nobody is inside, the replica is ready, and its memory is what it was."""
    await asyncio.sleep(SETTLE_SECONDS)
    inside = re.search(r"^osteon_pending_requests (\S+)", (await http.get(f"{ADDRESS}/metrics")).text, re.MULTILINE)
    bag["hung"] += int(float(inside[1])) if inside else 1
    bag["unready"] += (await http.get(f"{ADDRESS}/health/ready")).status_code != httpx.codes.OK
    growth = resident(process) / before - 1
    print(f"resident memory: {before >> 20} MiB, at the end {growth:+.1%}")
    bag["grown"] += growth > GROWTH


if __name__ == "__main__":
    main()
