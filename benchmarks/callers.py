"""Sends ordinary, slow and hostile requests to a service, and names the outcome of each."""

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from benchmarks.load import EncodedRequest
from benchmarks.servers import ADDRESS, PORT

CALLER_COUNT = 16
"""Number of concurrent callers: one full batch."""
PROBABILITY_TOLERANCE = 0.002
"""Maximum difference from the predictor's own probability; another batch changes it by less."""
REPLY_TIMEOUT_SECONDS = 60.0
"""Timeout for a reply and for the end of a process, in seconds."""


@dataclass(frozen=True)
class KnownImage:
    """An image for the callers to send, its request and its expected probability."""

    image: bytes
    request: EncodedRequest
    probability: float


def create_client() -> httpx.AsyncClient:
    """Create a client with a connection for every caller; it ignores proxy settings."""
    limits = httpx.Limits(max_connections=2 * CALLER_COUNT, max_keepalive_connections=2 * CALLER_COUNT)
    return httpx.AsyncClient(timeout=REPLY_TIMEOUT_SECONDS, limits=limits, trust_env=False)


async def send_image(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send a radiograph like an ordinary caller, and check the reply."""
    try:
        reply = await http.post(each.request.address, content=each.request.content, headers=each.request.headers)
    except httpx.ConnectError:
        return "connection refused"
    except httpx.TransportError:
        return "lost"
    return _check_reply(reply, each, "answered")


def _check_reply(reply: httpx.Response, each: KnownImage, right: str) -> str:
    if reply.status_code == httpx.codes.TOO_MANY_REQUESTS and "Retry-After" in reply.headers:
        return "refused"
    if reply.status_code != httpx.codes.OK:
        return "wrong"
    return right if abs(reply.json()["probability"] - each.probability) <= PROBABILITY_TOLERANCE else "wrong"


async def _send_hostile(http: httpx.AsyncClient, content: bytes) -> str:
    reply = await http.post(f"{ADDRESS}/cam", content=content, headers={"Content-Type": "image/png"})
    if reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return "refused"
    return "attack rejected" if httpx.codes.is_client_error(reply.status_code) else "wrong"


async def send_noise(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send random bytes as a PNG, like a hostile caller."""
    return await _send_hostile(http, random.Random(each.probability).randbytes(100_000))


async def send_half(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send the first half of a PNG, like a hostile caller."""
    return await _send_hostile(http, each.image[: len(each.image) // 2])


async def send_huge_header(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send a PNG whose header says 60,000 x 60,000 pixels, like a hostile caller."""
    return await _send_hostile(http, each.image[:16] + 2 * (60_000).to_bytes(4) + each.image[24:])


async def send_many_pixels(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send a truncated PNG of 30 million pixels in a file of a few kilobytes, like a hostile caller."""
    size = (6000).to_bytes(4) + (5000).to_bytes(4)
    depth = each.image[24:29]
    head = b"IHDR" + size + depth
    return await _send_hostile(http, each.image[:12] + head + zlib.crc32(head).to_bytes(4) + each.image[33:])


async def hang_up_while_sending(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Close the connection in the middle of the request, like a caller who hangs up."""
    return await _hang_up(each, len(each.request.content) // 2)


async def hang_up_while_waiting(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Close the connection before the reply, like a caller who hangs up."""
    return await _hang_up(each, len(each.request.content))


async def send_slowly(http: httpx.AsyncClient, each: KnownImage) -> str:
    """Send a radiograph over two seconds, like a caller on a slow connection, and check the reply."""

    async def parts() -> AsyncIterator[bytes]:
        content = each.request.content
        for start in range(0, len(content), len(content) // 10):
            yield content[start : start + len(content) // 10]
            await asyncio.sleep(0.2)

    headers = each.request.headers | {"Content-Length": str(len(each.request.content))}
    reply = await http.post(each.request.address, content=parts(), headers=headers)
    return _check_reply(reply, each, "slow sender answered")


async def _hang_up(each: KnownImage, sent: int) -> str:
    _, writer = await asyncio.open_connection("127.0.0.1", PORT)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(each.request.content)}\r\n"
    head += f"Content-Type: {each.request.headers['Content-Type']}\r\n\r\n"
    writer.write(head.encode() + each.request.content[:sent])
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    return "hung up"


Attack = Callable[[httpx.AsyncClient, KnownImage], Awaitable[str]]
ATTACKS: Sequence[Attack] = (
    send_noise,
    send_half,
    send_huge_header,
    send_many_pixels,
    hang_up_while_sending,
    hang_up_while_waiting,
    send_slowly,
)
