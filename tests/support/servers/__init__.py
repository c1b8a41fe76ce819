"""Servers that the tests start: DNS, HTTP, metadata services."""
