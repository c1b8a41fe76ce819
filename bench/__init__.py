"""Benchmarks: `make bench`. What is measured, how, and what came of it: bench/NOTES.md."""
