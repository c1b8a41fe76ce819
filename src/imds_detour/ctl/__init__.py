"""Verbs of imds-detourctl: for people and for the sidecar, never on the way to the app."""
