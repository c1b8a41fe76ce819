"""A development mock of every cloud's metadata service."""
