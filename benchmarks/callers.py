"""Callers of every kind in, a word for what became of each request out: honest, slow, and up to no good."""

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from benchmarks.load import Question
from benchmarks.servers import ADDRESS, PORT

CALLERS = 16
TOLERANCE = 0.002
"""Of a probability: an answer is right when it is the predictor's own, in whatever company its batch was."""
HUNG_SECONDS = 60.0
"""Within which every request has some answer, and a process ends."""


@dataclass(frozen=True)
class Known:
    """An image, its request, and the probability that is its right answer."""

    image: bytes
    question: Question
    probability: float


def client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=2 * CALLERS, max_keepalive_connections=2 * CALLERS)
    return httpx.AsyncClient(timeout=HUNG_SECONDS, limits=limits, trust_env=False)


async def ask(http: httpx.AsyncClient, each: Known) -> str:
    """An honest caller."""
    try:
        reply = await http.post(each.question.address, content=each.question.content, headers=each.question.headers)
    except httpx.ConnectError:
        return "not let in"
    except httpx.TransportError:
        return "lost"
    return _judged(reply, each, "answered")


def _judged(reply: httpx.Response, each: Known, right: str) -> str:
    if reply.status_code == httpx.codes.TOO_MANY_REQUESTS and "Retry-After" in reply.headers:
        return "refused"
    if reply.status_code != httpx.codes.OK:
        return "wrong"
    return right if abs(reply.json()["probability"] - each.probability) <= TOLERANCE else "wrong"


async def _expecting_a_problem(http: httpx.AsyncClient, content: bytes) -> str:
    reply = await http.post(f"{ADDRESS}/cam", content=content, headers={"Content-Type": "image/png"})
    if reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return "refused"
    return "attack told off" if httpx.codes.is_client_error(reply.status_code) else "wrong"


async def send_noise(http: httpx.AsyncClient, each: Known) -> str:
    return await _expecting_a_problem(http, random.Random(each.probability).randbytes(100_000))


async def send_half(http: httpx.AsyncClient, each: Known) -> str:
    return await _expecting_a_problem(http, each.image[: len(each.image) // 2])


async def send_huge_header(http: httpx.AsyncClient, each: Known) -> str:
    """A PNG that says it has 60,000 x 60,000 pixels."""
    return await _expecting_a_problem(http, each.image[:16] + 2 * (60_000).to_bytes(4) + each.image[24:])


async def send_many_pixels(http: httpx.AsyncClient, each: Known) -> str:
    """30 million pixels that end too early, in a file of a few kilobytes."""
    size, depth = (6000).to_bytes(4) + (5000).to_bytes(4), each.image[24:29]
    head = b"IHDR" + size + depth
    return await _expecting_a_problem(http, each.image[:12] + head + zlib.crc32(head).to_bytes(4) + each.image[33:])


async def hang_up_while_sending(http: httpx.AsyncClient, each: Known) -> str:
    return await _hang_up(each, len(each.question.content) // 2)


async def hang_up_while_waiting(http: httpx.AsyncClient, each: Known) -> str:
    return await _hang_up(each, len(each.question.content))


async def send_slowly(http: httpx.AsyncClient, each: Known) -> str:
    """A caller on a bad line; the answer must be right."""

    async def parts() -> AsyncIterator[bytes]:
        content = each.question.content
        for start in range(0, len(content), len(content) // 10):
            yield content[start : start + len(content) // 10]
            await asyncio.sleep(0.2)

    headers = each.question.headers | {"Content-Length": str(len(each.question.content))}
    reply = await http.post(each.question.address, content=parts(), headers=headers)
    return _judged(reply, each, "slow sender answered")


async def _hang_up(each: Known, sent: int) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", PORT)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(each.question.content)}\r\n"
    head += f"Content-Type: {each.question.headers['Content-Type']}\r\n\r\n"
    writer.write(head.encode() + each.question.content[:sent])
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    return "hung up"


Attack = Callable[[httpx.AsyncClient, Known], Awaitable[str]]
ATTACKS: Sequence[Attack] = (
    send_noise,
    send_half,
    send_huge_header,
    send_many_pixels,
    hang_up_while_sending,
    hang_up_while_waiting,
    send_slowly,
)
