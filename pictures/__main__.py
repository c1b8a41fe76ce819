"""Run the commands of the README's pictures and draw their output into docs/: ``make picture``.

Two network namespaces act as two containers, as in the demo. Every line of a picture is real output.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from imds_detour.ctl.lab import sandbox
from imds_detour.ctl.lab.hosts import Host, environ, link, start_host
from pictures.terminal import draw, output

DOCS = os.path.join(os.path.dirname(__file__), os.pardir, "docs")
BIN = os.path.dirname(sys.executable)
NAME, MOCK, APP, PORT = "mock_metadata", "172.20.0.2", "172.20.0.3", "1338"
URL = "http://169.254.169.254/latest/meta-data/instance-id"

NAMESERVER = f"""
from imds_detour.ctl.lab.nameserver import addresses, serve
serve({MOCK!r}, lambda question, _transport: addresses(question, {NAME!r}, [{MOCK!r}]))
"""
SHELL = r"""
for command in "$@"; do
    case $command in
        "#"*) printf '\033[36m%s\033[0m\n' "$command"; continue ;;
        export*) eval "$command"; continue ;;
    esac
    printf '\033[32m$\033[0m \033[1m%s\033[0m\n' "$command"
    eval "$command"
    echo
done
"""
"""Show each command after a prompt, and run it; an empty line follows its output. Exports are run only."""

TITLES = {
    "start": "A terminal: without imds-detour, curl times out; with it, curl prints the mock's instance id; with a"
    " wrong port, curl does not start",
    "start.es": "Una terminal: sin imds-detour, curl agota el tiempo; con él, curl imprime el instance id del mock; con"
    " un puerto equivocado, curl no arranca",
    "doctor": "A terminal: imds-detourctl doctor checks what a redirect needs, sees that port 80 is refused, and"
    " says what to fix",
    "doctor.es": "Una terminal: imds-detourctl doctor revisa lo que el desvío necesita, ve que el puerto 80 rechaza la"
    " conexión, y dice qué corregir",
}
SCENES = {
    "start": ("# nothing answers", "# your mock answers", "# a wrong port: curl does not start"),
    "start.es": ("# nada responde", "# responde tu mock", "# un puerto equivocado: curl no arranca"),
}
STORIES = {
    **{
        name: (
            f"export MOCK_HOSTNAME={NAME} MOCK_PORT={PORT} MOCK_TIMEOUT=1 MOCK_LOG=quiet",
            *(nothing, f"curl --max-time 2 {URL}"),
            *(answer, f"imds-detour curl -w '\\n' {URL}"),
            *(refused, f"MOCK_PORT=80 imds-detour curl {URL} 2>&1 | cut -d';' -f1"),
        )
        for name, (nothing, answer, refused) in SCENES.items()
    },
    "doctor": (f"MOCK_HOSTNAME={NAME} MOCK_PORT=80 imds-detourctl doctor",),
    "doctor.es": (
        "# revisa todo, no cambia nada, y termina con lo único que hay que corregir",
        f"MOCK_HOSTNAME={NAME} MOCK_PORT=80 imds-detourctl doctor",
    ),
}


def main() -> int:
    """Draw all pictures."""
    if not sandbox.inside():
        if why := sandbox.missing():
            sys.stderr.write(f"picture: {why}\n")
            return 2
        return sandbox.run([sys.executable, "-m", "pictures"], environ())
    settings = environ(PATH=f"{BIN}:{os.environ['PATH']}", LANG="C.UTF-8")
    for name, commands in STORIES.items():
        with ExitStack() as stack:
            mock = stack.enter_context(start_host())
            app = stack.enter_context(start_host(nameservers=(MOCK,)))
            link(mock, app, "eth0", f"{MOCK}/16", f"{APP}/16")
            app.ip("route", "add", "default", "via", MOCK)  # as in a container; here it leads nowhere
            _start(stack, mock, sys.executable, "-c", NAMESERVER)
            _start(stack, mock, f"{BIN}/imds-detourctl", "mock", "--listen", f"0.0.0.0:{PORT}", "--quiet")
            text = output(app.inside("sh", "-c", SHELL, "sh", *commands), settings)
        with open(f"{DOCS}/{name}.svg", "w", encoding="utf-8") as file:
            file.write(draw(text, TITLES[name]))
        sys.stdout.write(f"docs/{name}.svg\n")
    return 0


def _start(stack: ExitStack, host: Host, *command: str) -> None:
    """Start a server and wait for its first line, which says that it listens."""
    server = stack.enter_context(host.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    stack.callback(server.kill)
    assert server.stdout is not None  # noqa: S101  (a pipe was asked for)
    line = server.stdout.readline()
    if "ready" not in line and "listen" not in line:
        raise RuntimeError(f"{command[0]} did not start: {line}")


if __name__ == "__main__":
    sys.exit(main())
