"""Real SDKs behind the installed imds-detour, in closed namespaces, against our mock and others."""
