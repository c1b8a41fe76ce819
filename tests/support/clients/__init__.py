"""Programs that ask, write rules, or look at themselves."""
