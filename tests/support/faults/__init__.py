"""Ways to make a start fail."""
