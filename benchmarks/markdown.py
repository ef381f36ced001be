"""Cells in, the lines of a Markdown table out; it needs nothing, for `benchmarks.gpu` runs on bare machines."""


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
