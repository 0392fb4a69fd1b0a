"""A run in the terminal: live progress while it computes, and tables of what came out."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from neuropil.bench.progress import Event
from neuropil.bench.report import summary
from neuropil.bench.result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

VERDICT_STYLES = {"holds": "bold green", "fails": "bold red", "undecided": "bold yellow", "not judged": "dim"}


def print_result(result: Result, console: Console | None = None) -> None:
    """Print the claims with their verdicts, every arm's metrics and what they cost.

    Metrics are the mean over seeds ± half of the 95 % interval; a single seed has no interval.
    """
    console = console or _console()
    console.print()
    if result.judgements:
        console.print(_claims(result))
    for table in (*_arms(result, console.width), *(_costs(result, console.width) if result.trials else ())):
        console.print(table)
    for failure in result.failures:
        console.print(
            f"failed: {failure.arm}, seed {failure.seed}: {failure.message}", style="red", markup=False
        )


class LiveProgress:
    """Shows a run's events: a bar per arm with the time left, or plain lines when nobody is looking.

    Pass it as the run's `on_event`, inside a `with` block. `arms` are the arms that will run.

    >>> from rich.console import Console
    >>> with LiveProgress(["hlop"], Console(width=60)) as progress:
    ...     progress(Event("planned", 0, 1, left=2.0))
    ...     progress(Event("finished", 1, 1, "hlop", 0, seconds=1.9, left=0.0))
    1 trial, about 2.0 s
    [1/1] hlop seed 0: 1.9 s
    """

    def __init__(self, arms: Sequence[str], console: Console | None = None) -> None:
        self._arms = tuple(arms)
        self._console = console or _console()
        self._live: Any = None
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = _bars(self._console)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._live is None:
            self._line(event)
        else:
            self._draw(event)

    def _draw(self, event: Event) -> None:
        if event.kind == "planned":
            for bar in self._bars.values():  # a second run under the same eyes starts afresh
                self._live.remove_task(bar)
            # Every arm runs the same seeds, so that the total tells each arm's share.
            share = event.total / max(len(self._arms), 1)
            for arm in self._arms:
                self._bars[arm] = self._live.add_task(_literal(arm), total=share, left="")
            self._bars[""] = self._live.add_task("all", total=event.total, left="")
        elif event.kind in ("finished", "cached", "failed") and event.arm in self._bars:
            self._live.advance(self._bars[event.arm])
        if event.kind in ("failed", "warning"):
            self._live.console.print(
                _said(event), style="red" if event.kind == "failed" else "yellow", markup=False
            )
        if "" in self._bars:
            left = "" if event.left is None else f"{summary.duration(event.left)} left"
            self._live.update(self._bars[""], completed=event.done, left=left)

    def _line(self, event: Event) -> None:
        if event.kind not in ("started", "progress"):
            self._console.print(_said(event), markup=False, highlight=False, soft_wrap=True)


def _said(event: Event) -> str:
    """An event as a line of text."""
    if event.kind == "planned":
        about = "" if event.left is None else f", about {summary.duration(event.left)}"
        return f"{event.total} {'trial' if event.total == 1 else 'trials'}{about}"
    if event.kind == "warning":
        return f"warning: {event.message}"
    cell = f"[{event.done}/{event.total}] {event.arm} seed {event.seed}"
    if event.kind == "failed":
        return f"{cell} failed: {event.message}"
    if event.kind == "cached":
        return f"{cell}: known"
    taken = "done" if event.seconds is None else summary.duration(event.seconds)
    return f"{cell}: {taken}" + (f", {summary.duration(event.left)} left" if event.left else "")


def _claims(result: Result) -> Table:
    table = _table("claim", "verdict", "value (95 % interval)", "needs")
    for judgement in sorted(result.judgements, key=lambda j: not j.claim.primary):
        claim = judgement.claim
        word = summary.verdict(result, judgement)
        low, high = (
            summary.amount(claim, edge, unit=False) for edge in (judgement.ci_low, judgement.ci_high)
        )
        table.add_row(
            _literal(claim.text + (" (primary)" if claim.primary else "")),
            f"[{VERDICT_STYLES[word]}]{word}[/]",
            summary.amount(claim, judgement.value)
            + (f" ({low} to {high})" if judgement.ci_low is not None else ""),
            summary.condition(claim),
        )
    if result.scale != summary.JUDGED_SCALE:
        table.caption = f"claims are not judged at {result.scale} scale"
    return table


def _arms(result: Result, width: int) -> list[Table]:
    columns = {
        name: [_spread(summary.estimate(result.metric(arm, name)), name) for arm in result.arms]
        for name in summary.metric_names(result)
    }
    tables = _grid("arm", result, columns, width)
    seeds = len(result.seeds)
    half = "mean ± half of the 95 % interval, " if seeds > 1 else ""
    tables[-1].caption = f"{half}{seeds} {'seed' if seeds == 1 else 'seeds'}, {result.scale} scale"
    return tables


def _costs(result: Result, width: int) -> list[Table]:
    columns = {
        name.replace("_", " "): [
            summary.number(summary.estimate(summary.cost(result, arm, name)).mean) for arm in result.arms
        ]
        for name in summary.cost_names(result)
    }
    return _grid("cost a trial", result, columns, width)


def _grid(corner: str, result: Result, columns: Mapping[str, Sequence[str]], width: int) -> list[Table]:
    """Arms against columns of numbers, in as many tables as it takes to show every number whole."""
    first = max(map(len, (corner, *result.arms)))
    tables: list[list[str]] = [[]]
    room = width - first
    for name, cells in columns.items():
        needed = max(map(len, (name, *cells))) + 3
        if needed > room and tables[-1]:
            tables.append([])
            room = width - first
        tables[-1].append(name)
        room -= needed
    drawn = []
    for names in tables:
        table = _table(corner, *names, numeric_from=1)
        for i, arm in enumerate(result.arms):
            table.add_row(_literal(arm), *(columns[name][i] for name in names))
        drawn.append(table)
    return drawn


def _spread(estimate: summary.Estimate, metric: str) -> str:
    if estimate.half is None:
        return summary.number(estimate.mean, metric)
    mean = summary.number(estimate.mean, metric, unit=False)
    return f"{mean} ± {summary.number(estimate.half, metric)}"


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    return Console()


def _literal(text: str) -> str:
    """Text in which rich sees no markup."""
    from rich.markup import escape  # noqa: PLC0415

    return escape(text)


def _table(*columns: str, numeric_from: int = 99) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left", caption_style="dim")
    for i, column in enumerate(columns):
        table.add_column(
            _literal(column), justify="right" if i >= numeric_from else "left", no_wrap=i >= numeric_from
        )
    return table


def _bars(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[left]}"),
        console=console,
    )
