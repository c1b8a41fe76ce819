"""Benchmarks: `make bench`. Methods and results: bench/NOTES.md."""
