"""Find the mock: by its name, and by what it answers."""
