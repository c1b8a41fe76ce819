"""Code that several layers of tests share: hosts, servers, clients, judges and faults."""

import os

SUPPORT = os.path.dirname(os.path.abspath(__file__))
"""The folder of the scripts that run in test hosts."""
