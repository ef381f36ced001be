"""Child process that reports the error whose name it is sent, and replies to anything else with the data."""

from xray.sandbox.worker import MemoryLimits, send_reply, serve

REPORT = b"E"


def handle(kind: bytes, data: bytes) -> None:
    if kind == REPORT:
        send_reply({"error": data.decode(), "detail": "The file is damaged."})
    else:
        send_reply({}, data)


if __name__ == "__main__":
    serve(lambda: None, handle, MemoryLimits(address_space=1 << 30, resident=1 << 30))
