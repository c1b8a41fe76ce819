"""The arm64 bundle in a virtual machine with Debian's arm64 kernel."""
