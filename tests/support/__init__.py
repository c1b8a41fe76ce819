"""What the layers share: hosts, servers, clients, judges and faults."""

import os

SUPPORT = os.path.dirname(os.path.abspath(__file__))
"""Where the scripts are that run in hosts of their own."""
