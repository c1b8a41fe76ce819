"""imds-detourctl: its help, flags that mirror the settings, completion, and how its lines look on a terminal."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from imds_detour import __version__
from imds_detour.config.variables import VARIABLES
from imds_detour.ctl import flags, main
from tests.support.clients.terminal import COLUMNS, on_a_terminal
from tests.support.hosts.network import CTL, METADATA, MOCK, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

HELP = """\
usage: imds-detourctl VERB [FLAG...]

See, check, prepare and undo what imds-detour does to the metadata address.

options:
  -h, --help      show this help message and exit
  --version       show program's version number and exit

verbs:
  VERB [FLAG...]
"""
CHECK_HELP = """\
usage: imds-detourctl check [FLAG...]

Ask through the metadata address now; exit 0 if the mock answers, else 1.

options:
  -h, --help            show this help message and exit

settings:
  Each flag sets a variable of the environment, and wins over it.

  --hostname HOSTNAME, --mock HOSTNAME
"""
CHECK_END = """
Asks the mock directly and through the metadata address, and compares. Needs no
capability; with NET_ADMIN it also sees our rule's counter rise. It tries once,
for 5 seconds at most.

In a Dockerfile:
  HEALTHCHECK CMD ["/opt/imds-detour/bin/imds-detourctl", "check"]

exit status: 0 if the mock answers there, else 1.
"""
RED, GREEN = "\033[31m", "\033[32m"


def ctl(network: Network, *words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with nothing in the environment but what is given."""
    return network.raw(CTL, *words, environ={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "80", **environ})


def test_help_lists_every_verb(running: Network) -> None:
    """Each with what it does, on stdout, with exit status 0."""
    done = ctl(running, "--help")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith(HELP)
    for name, summary in main.VERBS.items():
        assert f"    {name:14}{summary}" in re.sub(r"\n {18}(?=\S)", " ", text)
    assert text.endswith("(MOCK_HOSTNAME and so on) or by flag (--hostname and so on); a flag wins.\n")


def test_the_help_of_a_verb(running: Network) -> None:
    """What it does, its flags, what it needs, how to use it, and its exit status."""
    text = ctl(running, "check", "--help").stdout.decode()
    assert text.startswith(CHECK_HELP)
    assert text.endswith(CHECK_END)


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help_that_fits_a_terminal(running: Network, verb: str) -> None:
    """It is found, it starts alike, and nothing is wider than what is wide elsewhere."""
    done = ctl(running, verb, "--help")
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].startswith(f"usage: imds-detourctl {verb} ")
    assert max(len(line) for line in lines[3:]) <= 120


def test_each_setting_has_its_flag() -> None:
    """Made from the settings table: init has them all but those about the app, with the variable and its default."""
    text = re.sub(r"\s+", " ", _help("init"))
    for variable in VARIABLES:
        flag = f"--{variable.name.removeprefix('MOCK_').lower().replace('_', '-')}"
        if variable.name not in flags.APP_SETTINGS:
            default = f", default {variable.default}" if variable.default else ""
            assert f"{flag} {variable.name.removeprefix('MOCK_')}" in text
            assert re.sub(r"\s+", " ", f"{variable.meaning} [{variable.name}{default}]") in text.replace("- ", "-")
        else:
            assert f"{flag} " not in text


def _help(verb: str) -> str:
    parsers = main.parser([verb])
    (verbs,) = (action for action in parsers._actions if action.dest == "verb")  # noqa: SLF001  (no other way in)
    assert isinstance(verbs.choices, dict)
    text: str = verbs.choices[verb].format_help()
    return text


def test_version(running: Network) -> None:
    """Name and number."""
    assert ctl(running, "--version").stdout.decode() == f"imds-detourctl {__version__}\n"


@pytest.mark.parametrize("words", [(), ("nonsense",), ("status", "--nonsense"), ("completion",), ("completion", "csh")])
def test_wrong_usage_is_status_2(running: Network, words: tuple[str, ...]) -> None:
    """The usage, and what is wrong, on stderr."""
    done = ctl(running, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: imds-detourctl ")
    assert b"Traceback" not in done.stderr


def test_one_verb_loads_one_module(running: Network) -> None:
    """The mock's asyncio, for one, is not for everybody who wants to know the status."""
    done = running.raw(sys.executable, "-X", "importtime", CTL, "status", "--help", environ={})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "imds_detour.firewall.select" in loaded
    assert loaded & {"asyncio", "subprocess", "shtab", "imds_detour.ctl.rule_reader", "imds_detour.ctl.doctor"} == set()


@pytest.mark.parametrize("words", [("plan", "--mock", MOCK), ("status",), ("--help",)])
def test_a_reader_that_has_seen_enough_gets_no_traceback(running: Network, words: tuple[str, ...]) -> None:
    """As in ``imds-detourctl plan | head -0``."""
    piped = running.raw("sh", "-c", f"{{ {CTL} {' '.join(words)}; echo $? >&2; }} | true", environ={"PATH": "/bin"})
    assert b"Traceback" not in piped.stderr
    assert b"Exception ignored" not in piped.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["--help", f"plan --mock {MOCK}", "status", f"init --mock {MOCK} --port 1 --timeout 0.1"]
)
def test_a_closed_stream_is_as_one_that_nobody_reads(running: Network, words: str, closed: str) -> None:
    """The exit status is what it is with /dev/null in its place, and there is no traceback."""
    nobody = closed.replace("<&-", "</dev/null").replace(">&-", ">/dev/null")
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done, expected = (running.raw("sh", "-c", f"{CTL} {words} {how}", environ=environ) for how in (closed, nobody))
    assert b"Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)


def test_a_full_disk_is_one_line(running: Network) -> None:
    """Nothing is lost without a word."""
    done = running.raw("sh", "-c", f"{CTL} --help > /dev/full", environ={"PATH": "/bin"})
    assert (done.returncode, done.stderr) == (125, b"imds-detour: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize(
    "words", [("sidecar",), ("init",), ("check",), ("plan",), ("mock", "--fail", "x"), ("remove",)]
)
def test_a_failure_is_told_as_mock_log_asks_for(running: Network, words: tuple[str, ...]) -> None:
    """As a line of JSON with the step, by the variable or its flag; as text, the control, where neither makes sense."""
    command = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", CTL, *words)
    settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    text = running.raw(*command, environ=settings)
    (line,) = text.stderr.decode().splitlines()
    assert line.startswith("imds-detour: ")
    told = running.raw(*command, environ={**settings, "MOCK_LOG": "json"})
    facts = json.loads(told.stderr)
    assert facts["event"] == "failed"
    assert line.removeprefix("imds-detour: ") == "; ".join(filter(None, (facts["reason"], facts["remedy"])))
    assert told.returncode == text.returncode == (1 if words == ("check",) else 125)
    if words in (("sidecar",), ("init",)):
        assert running.raw(*command, "--log", "json", environ={**settings, "MOCK_LOG": "text"}).stderr == told.stderr
    else:
        assert running.raw(*command, environ={**settings, "MOCK_LOG": "xml"}).stderr.startswith(b"imds-detour: ")


def test_what_the_system_refuses_a_verb_is_not_said_of_stdout(running: Network) -> None:
    """A file that is not there, which nobody thought of: its name is in the line."""
    block = "import os, sys, types; from imds_detour.ctl import main; sys.argv[1:] = ['check']"
    verb = "main.verb = lambda _: types.SimpleNamespace(run=lambda _: os.stat('/no/file'))"
    done = running.raw(sys.executable, "-c", f"{block}; {verb}; sys.exit(main.main())", environ={})
    said = b"imds-detour: the system refuses: [Errno 2] No such file or directory: '/no/file'\n"
    assert (done.returncode, done.stdout, done.stderr) == (125, b"", said)


BASH = r"""
source "$1"
complete -p imds-detourctl
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_imds_detourctl; echo "${COMPREPLY[@]}"; }
ask imds-detourctl ch; ask imds-detourctl init --ba; ask imds-detourctl init --backend n
ask imds-detourctl completion z
"""
FISH = """
source $argv[1]
for line in "ch" "init --ba" "init --backend n" "completion z"
    complete -C "imds-detourctl $line"
end
"""
ZSH = """
autoload -U compinit; compinit -u -D
eval "$(cat $1)"
print $_comps[imds-detourctl]
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_flags_and_values(running: Network, shell: str) -> None:
    """The shell itself takes the script, and completes; zsh can be asked only whether it has taken it."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    script = f"/run/completion.{shell}"
    running.app.run("sh", "-c", f"{CTL} completion {shell} > {script}")
    said = {
        "bash": lambda: running.app.run("bash", "-c", BASH, "bash", script),
        "zsh": lambda: running.app.run("zsh", "-fc", ZSH, "zsh", script),
        "fish": lambda: running.app.run(
            "fish", "--no-config", "-c", FISH, script, environ={"HOME": "/run", "PATH": "/bin:/usr/bin"}
        ),
    }[shell]()
    words = [line.split("\t")[0] for line in said.stdout.splitlines()]
    expected = ["check", "--backend", "nft", "zsh"]
    assert said.stderr == ""
    assert words[-4:] == expected if shell != "zsh" else words == ["_shtab_imds_detourctl"]


def test_completion_without_its_library_names_the_extra(running: Network) -> None:
    """It is an optional dependency: one line says how to get it."""
    block = "import sys; sys.modules['shtab'] = None; sys.argv[1:] = ['completion', 'bash']"
    done = running.raw(
        sys.executable, "-c", f"{block}; from imds_detour.ctl.main import main; sys.exit(main())", environ={}
    )
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == (
        b"imds-detour: the library shtab, which writes it, is not installed; pip install 'imds-detour[ctl]'\n"
    )


def test_colours_are_for_terminals_only(running: Network) -> None:
    """Green for what is well, red for what is not; none with NO_COLOR, on a dumb terminal, or in a pipe."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    status, text = on_a_terminal(running.app, CTL, "doctor", environ=settings)
    assert status == 0
    assert f"{GREEN}ok  \033[0m  who answers" in text
    status, text = on_a_terminal(running.app, CTL, "doctor", environ={**settings, "MOCK_PORT": "1"})
    assert status == 1
    assert f"{RED}fail\033[0m  TCP" in text
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, text = on_a_terminal(running.app, CTL, "doctor", environ={**settings, **plain})
        assert "ok    who answers" in text
        assert "\033[3" not in text
    piped = running.raw(CTL, "doctor", environ={**settings, "TERM": "xterm"})
    assert b"\033" not in piped.stdout + piped.stderr
    # An empty NO_COLOR is none (no-color.org).
    assert GREEN in on_a_terminal(running.app, CTL, "doctor", environ={**settings, "NO_COLOR": ""})[1]


def test_the_json_of_a_verb_has_no_colours(running: Network) -> None:
    """Also on a terminal."""
    _, text = on_a_terminal(running.app, CTL, "status", "--json", environ={})
    assert text.startswith("{")
    assert "\033" not in text


def test_who_waits_on_a_terminal_sees_what_for(running: Network) -> None:
    """A line that turns, says what was seen last, and is gone at the end; the failure stays."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "1", "MOCK_TIMEOUT": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    status, text = on_a_terminal(running.app, CTL, "init", environ={**settings, "LC_ALL": "C.UTF-8"})
    assert status == 125
    turns = text.split("\r\033[K")
    assert len({turn[:9] for turn in turns if "waiting: " in turn}) > 1, "it turns"
    assert any(f"waiting: {MOCK}:1: connection refused (" in turn for turn in turns)
    assert max(len(re.sub(r"\x1b\[\d*m", "", turn)) for turn in turns[:-1]) < COLUMNS
    assert turns[-1].startswith("imds-detour: no mock after 1 s: ")
    # In a pipe the wait is a line, as ever, and nothing moves the cursor.
    piped = running.raw(CTL, "init", environ=settings)
    assert piped.stderr.startswith(b"imds-detour: waiting: ")
    assert b"\033" not in piped.stderr


def test_what_comes_from_outside_cannot_colour_the_terminal(running: Network) -> None:
    """Control characters in a setting are shown, not obeyed."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://x\033[31mred"}
    _, text = on_a_terminal(running.app, CTL, "doctor", environ=settings)
    assert "http://x\\x1b[31mred" in text
    assert f"{METADATA}" in text
