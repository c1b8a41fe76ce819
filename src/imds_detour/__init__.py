"""Send the cloud metadata address to a mock, prove that the mock answers, and exec the app."""

__version__ = "0.1.0"
