"""One module per group of workloads, each with a list `WORKLOADS`; found by their place."""
