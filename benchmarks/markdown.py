"""Formats Markdown tables; imports nothing, because `benchmarks.gpu` runs on machines with few packages."""


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
