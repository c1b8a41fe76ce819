"""imds-detourctl init: redirect once and verify, without an app: for init containers, or a laptop's network."""

import argparse
import sys

from imds_detour import redirect
from imds_detour.ctl import flags, report
from imds_detour.ctl.terminal import Progress, Spinner, Style, Terminal
from imds_detour.deadline import Deadline
from imds_detour.firewall.select import FirewallSelector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    report.add_flag(parser)
    flags.add_namespace(parser)
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Redirect with these settings, and print the result."""
    settings = flags.parse(arguments).replace(keep_net_admin=True)  # there is no app that could use it
    flags.refuse_env(settings, "init starts none", "leave it out, or use imds-detour")
    deadline = Deadline(settings.timeout)
    environment = flags.inspect(settings, arguments)
    spinner = Spinner(Terminal.of(sys.stderr), "redirecting", wanted=settings.log == "text")
    with spinner, FirewallSelector(settings.backend, (4,), deadline.remaining) as selector:
        result = redirect.setup(settings, environment, selector, deadline, Progress(settings.log, spinner))
    if arguments.json:
        answers = result.identities or [None] * len(result.targets)
        redirects = [report.redirect(*pair) for pair in zip(result.targets, answers, strict=True)]
        report.write({"redirects": redirects, "backend": result.backend})
    else:
        Terminal.of(sys.stdout).line(result.line(), Style.GREEN if result.identities else Style.YELLOW)
    return 0
