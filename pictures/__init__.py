"""The README's terminal pictures, drawn from a run on this machine: ``make picture``."""
