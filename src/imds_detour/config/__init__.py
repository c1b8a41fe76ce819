"""The user's settings, as values. Nothing in this package reads or changes the system."""
