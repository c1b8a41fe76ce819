"""imds-detourctl, the operator's tool. A start of the app imports nothing of it."""
