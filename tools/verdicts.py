"""Write the verdicts of all studies that were run into the README, between its two markers: `make verdicts`."""

from __future__ import annotations

from pathlib import Path

from neuropil.bench import catalogue, evidence
from neuropil.bench.result import Judgement

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- verdicts -->", "<!-- end of verdicts -->"


def main() -> None:
    """Replace what stands between the markers."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


def table() -> str:
    """One table a room: every system with evidence, its primary claim and how it was judged."""
    lines = []
    entries = catalogue.entries()
    for room in dict.fromkeys(entry.room for entry in entries):
        rows = [row(entry.id) for entry in entries if entry.room == room and has_evidence(entry.id)]
        if rows:
            held = sum(row.endswith("| holds |") for row in rows)
            head = f"| room `{room}`, {held} of {len(rows)} hold | primary claim | found (95 % interval) | verdict |"
            lines += ["", head, "| --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def has_evidence(system: str) -> bool:
    """Whether a system has been built and run."""
    built = catalogue.study_path(system).is_file()
    return built and evidence.check([system])[0].state != "missing"


def row(system: str) -> str:
    """A system's line."""
    primary = next(found for found in evidence.read_evidence(system).judgements if found.claim.primary)
    return f"| `{system}` | {primary.claim.text} | {found(primary)} | {primary.verdict} |"


def found(judgement: Judgement) -> str:
    """The value and its interval, with the digits that matter."""
    numbers = (judgement.value, judgement.ci_low, judgement.ci_high)
    if None in numbers:
        return "-"
    value, low, high = (f"{number:.3g}" for number in numbers)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
