"""The sidecar: it follows the mocks, and keeps the redirects installed."""
