"""Become the app: its command, environment, user, privileges and signals."""
