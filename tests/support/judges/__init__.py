"""Code that decides whether a test passes: captures, listings, traces, manifests."""
