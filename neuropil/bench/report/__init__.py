"""The report of a run: one page to show to a colleague, and tables for the terminal."""

from neuropil.bench.report.page import write_report
from neuropil.bench.report.terminal import LiveProgress, print_result

__all__ = ["LiveProgress", "print_result", "write_report"]
