"""Faults that make a start fail."""
