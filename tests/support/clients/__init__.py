"""Programs that run on the app's host: they send packets, write rules, or inspect themselves."""
