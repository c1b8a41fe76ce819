"""The verbs of imds-detourctl, a module each."""
