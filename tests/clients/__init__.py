"""Real SDKs with the installed imds-detour, in closed namespaces, with the development mock and others."""
