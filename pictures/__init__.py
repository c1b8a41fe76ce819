"""The README's terminal pictures, each drawn from a run on this machine: ``make picture``."""
