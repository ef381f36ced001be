"""Health check of a container: `python -m app.runtime.healthcheck` exits with 0 if the local service is ready."""

import sys

import httpx

from app.settings import Settings

TIMEOUT_SECONDS = 3


def main() -> None:
    try:
        # trust_env: a proxy that the container is told of is not the way to itself.
        address = f"http://127.0.0.1:{Settings().port}/health/ready"
        reply = httpx.get(address, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        sys.exit(f"not reachable: {error}")
    if reply.status_code != httpx.codes.OK:
        sys.exit(f"not ready: {reply.text}")


if __name__ == "__main__":
    main()
