"""The report of a run: one page to show to a colleague, tables for the terminal, and a site of all systems."""

from neuropil.bench.report.page import write_report
from neuropil.bench.report.site import Comparison, write_site
from neuropil.bench.report.terminal import LiveProgress, print_result

__all__ = ["Comparison", "LiveProgress", "print_result", "write_report", "write_site"]
