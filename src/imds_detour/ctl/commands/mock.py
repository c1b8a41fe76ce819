"""imds-detourctl mock: serve a small metadata mock of every cloud, for development."""

import argparse
import contextlib
import json
import sys

from imds_detour_mock.flags import add_arguments, options
from imds_detour_mock.serve import serve
from imds_detour_mock.values import read_values

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT and return 0."""
    if args.print_data:
        sys.stdout.write(json.dumps(read_values(args.data), indent=2) + "\n")
        return 0
    serve(options(args), _write_line)
    return 0


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError):  # the mock keeps serving when the reader of its log has gone
        sys.stderr.write(f"imds-detourctl mock: {line}\n")
