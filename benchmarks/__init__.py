"""Every hot loop beside its best peer, measured in one run: `python -m benchmarks [NAME ...] [--json]`."""
