"""Programs that run in the app's host: they send, write rules, or inspect themselves."""
