"""imds-detourctl completion: the script that teaches a shell the verbs and flags."""

import argparse
import sys

from imds_detour.errors import DetourError

WHERE = {
    "bash": "source <(imds-detourctl completion bash)",
    "zsh": 'eval "$(imds-detourctl completion zsh)"',
    "fish": "imds-detourctl completion fish | source",
}
"""The line that loads the script in each shell; in zsh it comes after compinit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    lines = "".join(f"  {shell:5} {line}\n" for shell, line in WHERE.items())
    parser.usage = "%(prog)s SHELL"
    parser.epilog = f"In the shell's start-up file:\n{lines}"
    parser.add_argument("shell", metavar="SHELL", choices=tuple(WHERE), help="bash, zsh or fish")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab  # noqa: PLC0415  (an optional dependency)
    except ModuleNotFoundError:
        reason = "the library shtab, which writes it, is not installed"
        raise DetourError("completion", reason, f"`{sys.executable} -m pip install shtab`") from None
    from imds_detour.ctl import main  # noqa: PLC0415  (main loads this module)

    sys.stdout.write(shtab.complete(main.parser(main.VERBS), shell=arguments.shell) + "\n")
    return 0
