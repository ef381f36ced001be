"""Health check for containers: `python -m app.runtime.healthcheck` exits with 0 if the local service is ready."""

import sys

import httpx

from app.settings import Settings

TIMEOUT_SECONDS = 3
"""Timeout of the request to the local service, in seconds."""


def main() -> None:
    """Check a container's health: query readiness, and exit with a message if the service is not ready."""
    try:
        # trust_env=False: a proxy from the environment must not handle requests to this machine.
        address = f"http://127.0.0.1:{Settings().port}/health/ready"
        reply = httpx.get(address, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        sys.exit(f"not reachable: {error}")
    if reply.status_code != httpx.codes.OK:
        sys.exit(f"not ready: {reply.text}")


if __name__ == "__main__":
    main()
