"""Writes the results of `benchmarks.serving` as a page of tables with a plot."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot

from benchmarks.load import LoadResult
from benchmarks.markdown import table

PAGE = "serving.md"
"""Name of the page."""
PICTURE = "serving.png"
"""Name of the plot."""
TICKS_MS = (50, 100, 200, 500, 1000)
"""Ticks of the latency axis, in milliseconds."""


@dataclass(frozen=True)
class ClosedLoopResult:
    """The result of one closed loop, as the benchmark's report shows it.

    Attributes:
        limit: radiographs per second of the engine alone, measured around this loop.
    """

    outcome: LoadResult
    limit: float

    @property
    def share(self) -> float:
        """Replies per second as the report gives them: as a share of the limit."""
        return self.outcome.rate / self.limit

    def __str__(self) -> str:
        outcome = self.outcome
        return (
            f"{self.share:.2f} of the limit, {outcome.rate:.1f}/s, {outcome.refused} refused, {outcome.failed} failed"
        )


@dataclass(frozen=True)
class OpenLoopResult:
    """The result of one open loop, as the benchmark's report shows it.

    Attributes:
        load: offered rate as a share of the capacity.
        growth: share by which the service's resident memory grew.
    """

    load: float
    outcome: LoadResult
    growth: float


@dataclass(frozen=True)
class Page:
    """The contents of the benchmark's report: all results of one run.

    Attributes:
        limits: radiographs per second of the engine alone, around each server of each round.
        closed: results by server and number of clients, one for each round.
        alone: seconds to decode and predict one radiograph without a service.
        cam: latencies in seconds of `/classify` and `/cam` for one caller.
        capacity: replies per second of the best closed loop.
        opened: results of the open loops, one for each offered rate.
    """

    title: str
    limits: Sequence[float]
    closed: dict[str, dict[int, list[ClosedLoopResult]]]
    alone: float
    cam: tuple[float, float]
    capacity: float
    opened: Sequence[OpenLoopResult]


def write_page(page: Page, folder: Path) -> str:
    """Write the benchmark's report, a page and a plot, to the folder; return the page's Markdown."""
    text = "\n".join(["# Serving, side by side", "", *_lines(page), "", f"![the same as a picture]({PICTURE})", ""])
    (folder / PAGE).write_text(text)
    _draw(page, folder / PICTURE)
    return text


def _lines(page: Page) -> list[str]:
    ours, *peers = page.closed
    counts = list(page.closed[ours])
    rows = [[server, *(_cell(page.closed[server][clients]) for clients in counts)] for server in page.closed]
    ratios = [
        [f"Osteon over {peer}", *(_ratio(page.closed[ours][clients], page.closed[peer][clients]) for clients in counts)]
        for peer in peers
    ]
    one = statistics.median(each.outcome.percentile(0.5) for each in page.closed[ours][counts[0]])
    classify, cam = (1000 * seconds for seconds in page.cam)
    return [
        f"{page.title}: {_spread(page.limits, '.1f')}/s. Shares of the limit: median of "
        f"{len(page.closed[ours][counts[0]])} rounds (lowest to highest); times are medians and 99th percentiles.",
        "",
        *table(["callers who wait", *(f"{clients} of them" for clients in counts)], rows + ratios),
        "",
        f"One caller of ours waits {1000 * one:.1f} ms, {one / page.alone:.2f} times decoding and a pass of one "
        f"({1000 * page.alone:.1f} ms). `/cam` takes {cam:.1f} ms where `/classify` takes {classify:.1f}.",
        "",
        *table(
            ["Osteon, callers who do not wait", "answered", "refused", "failed", "p50", "p99", "memory"],
            _open_rows(page),
        ),
    ]


def _cell(rounds: list[ClosedLoopResult]) -> str:
    outcomes = [each.outcome for each in rounds]
    p50, p99 = (1000 * statistics.median(outcome.percentile(share) for outcome in outcomes) for share in (0.5, 0.99))
    refused, failed = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("refused", "failed"))
    notes = f", {refused} refused" * bool(refused) + f", {failed} FAILED" * bool(failed)
    return f"{_spread([each.share for each in rounds], '.2f')}; {p50:.0f}, {p99:.0f} ms{notes}"


def _ratio(ours: list[ClosedLoopResult], peers: list[ClosedLoopResult]) -> str:
    return _spread([a.share / b.share for a, b in zip(ours, peers, strict=True)], ".2f")


def _spread(values: Sequence[float], digits: str) -> str:
    return f"{statistics.median(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def _open_rows(page: Page) -> list[list[str]]:
    return [
        [
            f"{each.load:g} of {page.capacity:.1f}/s offered",
            f"{each.outcome.rate / page.capacity:.2f} of the capacity",
            str(each.outcome.refused),
            str(each.outcome.failed),
            f"{1000 * each.outcome.percentile(0.5):.0f} ms",
            f"{1000 * each.outcome.percentile(0.99):.0f} ms",
            f"{each.growth:+.1%}",
        ]
        for each in page.opened
    ]


def _draw(page: Page, file: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for server, row in page.closed.items():
        shares = [[each.share for each in rounds] for rounds in row.values()]
        middle = [statistics.median(each) for each in shares]
        low, high = ([abs(edge(each) - mid) for each, mid in zip(shares, middle, strict=True)] for edge in (min, max))
        left.errorbar(list(map(str, row)), middle, [low, high], marker="o", capsize=3, label=server)
    left.axhline(1, color="gray", linestyle=":")
    left.set(xlabel="callers who wait", ylabel="share of the engine alone", ylim=(0, 1.1))
    left.legend()
    for each in page.opened:
        times = sorted(1000 * seconds for seconds in each.outcome.latencies)
        shares_answered = [place / len(times) for place in range(1, len(times) + 1)]
        right.plot(times, shares_answered, label=f"{each.load:g}")
    right.set(xlabel="ms to the answer", ylabel="share of the answers", xscale="log")
    right.set_xticks(TICKS_MS, TICKS_MS, minor=False)
    right.minorticks_off()
    right.legend(title="offered, of the capacity", loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
