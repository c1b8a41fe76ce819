"""imds-detourctl: help, flags for the settings, completion, and colours on a terminal."""

import json
import re
import subprocess
import sys

import pytest

from imds_detour import __version__
from imds_detour.config.variables import VARIABLES
from imds_detour.ctl import flags, main
from tests.support.clients.terminal import COLUMNS, on_a_terminal
from tests.support.hosts.network import CTL, METADATA, MOCK, PORT, Network

HELP = """\
usage: imds-detourctl VERB [FLAG...]

See, check, prepare and undo what imds-detour does to the metadata address.

look:
  doctor      check all that a redirect needs, and name the one thing to fix
"""
CHECK_HELP = """\
usage: imds-detourctl check [FLAG...]

Ask through the metadata address now; exit 0 if the mock answers.

options:
  -h, --help            show this help message and exit
  --json                one JSON object instead of text, for programs

settings:
  Each flag sets a variable of the environment, and wins over it.

  --hostname HOSTNAME, --mock HOSTNAME
"""
CHECK_END = """
Asks the mock directly and through the metadata address, and compares. Needs no
capability; with NET_ADMIN it also sees the rule's counter rise. It tries once,
for 5 seconds at most.

examples:
  imds-detourctl check --json
  HEALTHCHECK CMD ["/opt/imds-detour/bin/imds-detourctl", "check"]

exit status: 0 if the mock answers there, else 1.
"""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
RED, GREEN = "\033[31m", "\033[32m"


def ctl(network: Network, *words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run imds-detourctl with only the given environment."""
    return network.raw(CTL, *words, environ={"PATH": PATH, "COLUMNS": "80", **environ})


def test_help_lists_every_verb_and_version_is_one_line(running: Network) -> None:
    """--help lists each verb in its group with its summary, and --version prints name and version."""
    done = ctl(running, "--help")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith(HELP)
    for title, verbs in main.GROUPS.items():
        rows = "".join(f"  {name:12}{summary}\n" for name, summary in verbs.items())
        assert f"\n\n{title}:\n{rows}\n" in text
    assert text.endswith(
        "\nexamples:\n  imds-detourctl doctor --mock mock_metadata:1338\n  imds-detourctl VERB --help\n"
    )
    assert max(map(len, text.splitlines())) <= 80
    assert ctl(running, "--version").stdout.decode() == f"imds-detourctl {__version__}\n"


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("verb", main.VERBS)
def test_verb_help_has_examples_and_fits_80_columns(running: Network, verb: str, columns: str) -> None:
    """The help of each verb has its usage and examples, and fits 80 columns; that of `check` is complete."""
    done = ctl(running, verb, "--help", COLUMNS=columns)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].startswith(f"usage: imds-detourctl {verb} ")
    assert max(map(len, lines)) <= 80
    assert re.match(rf"  .*\bimds-detourctl {verb}\b", lines[lines.index("examples:") + 1])
    if verb == "check":  # purpose, flags, requirements, example and exit status
        assert done.stdout.decode().startswith(CHECK_HELP)
        assert done.stdout.decode().endswith(CHECK_END)


def test_settings_have_flags() -> None:
    """The help of `init` has a flag with variable and default for each setting, except those of the app."""
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


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("status", "--jsn"), "'--jsn' is no flag of status: did you mean --json?"),
        (("init", "--bakend=nft"), "'--bakend' is no flag of init: did you mean --backend?"),
        (("doctor", "--Mock", "x"), "'--Mock' is no flag of doctor: did you mean --mock?"),
        (("remove", "--xyz"), "'--xyz' is no flag of remove: `imds-detourctl remove --help` lists its flags"),
        (("plan", "a\x1b"), "'a\\x1b' is no flag of plan: `imds-detourctl plan --help` lists its flags"),
        (("status", "status"), "'status' is no flag of status: `imds-detourctl status --help` lists its flags"),
        (("--json", "status"), "'--json' is before the verb: write `imds-detourctl VERB --json`"),
    ],
)
def test_unknown_flag_is_told_with_the_nearest(running: Network, words: tuple[str, ...], hint: str) -> None:
    """A flag that the verb does not have gives status 2, and the flag that resembles it, or where the flags are."""
    done = ctl(running, *words)
    *_, line = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, line.partition(" error: ")[2]) == (2, b"", hint)


@pytest.mark.parametrize("words", [(), ("nonsense",), ("status", "--nonsense"), ("completion",), ("completion", "csh")])
def test_wrong_usage_is_status_2(running: Network, words: tuple[str, ...]) -> None:
    """Wrong usage gives status 2 and a message on stderr."""
    done = ctl(running, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: imds-detourctl ")
    assert b"Traceback" not in done.stderr


def test_verb_loads_only_its_own_module(running: Network) -> None:
    """A verb does not load the modules of other verbs, such as the mock's asyncio."""
    done = running.raw(sys.executable, "-X", "importtime", CTL, "status", "--help", environ={})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "imds_detour.firewall.select" in loaded
    assert loaded & {"asyncio", "subprocess", "imds_detour.ctl.rule_reader", "imds_detour.ctl.doctor"} == set()


@pytest.mark.parametrize("words", [("plan", "--mock", MOCK), ("status",), ("--help",)])
def test_closed_pipe_causes_no_traceback(running: Network, words: tuple[str, ...]) -> None:
    """A reader that closes the pipe, as in ``imds-detourctl plan | head -0``, causes no traceback."""
    piped = running.raw("sh", "-c", f"{{ {CTL} {' '.join(words)}; echo $? >&2; }} | true", environ={"PATH": "/bin"})
    assert b"Traceback" not in piped.stderr
    assert b"Exception ignored" not in piped.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["--help", f"plan --mock {MOCK}", "status", f"init --mock {MOCK} --port 1 --timeout 0.1"]
)
def test_closed_stream_equals_dev_null(running: Network, words: str, closed: str) -> None:
    """With a closed standard stream the exit status is as with /dev/null, and there is no traceback."""
    unread = closed.replace("<&-", "</dev/null").replace(">&-", ">/dev/null")
    done, other = (running.raw("sh", "-c", f"{CTL} {words} {how}", environ={"PATH": PATH}) for how in (closed, unread))
    assert b"Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (other.returncode, other.stdout)


@pytest.mark.parametrize(
    "words", [("sidecar",), ("init",), ("check",), ("plan",), ("mock", "--fail", "x"), ("remove",)]
)
def test_failure_format_follows_mock_log(running: Network, words: tuple[str, ...]) -> None:
    """MOCK_LOG or --log selects JSON or text for the failure of a verb. The control is text."""
    command = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", CTL, *words)
    settings = {"PATH": PATH}
    text = running.raw(*command, environ=settings)
    (line,) = text.stderr.decode().splitlines()
    assert line.startswith("imds-detour: ")
    logged = running.raw(*command, environ={**settings, "MOCK_LOG": "json"})
    facts = json.loads(logged.stderr)
    assert facts["event"] == "failed"
    assert line.removeprefix("imds-detour: ") == "; ".join(filter(None, (facts["reason"], facts["remedy"])))
    assert logged.returncode == text.returncode == (1 if words == ("check",) else 125)
    if words in (("sidecar",), ("init",)):
        assert running.raw(*command, "--log", "json", environ={**settings, "MOCK_LOG": "text"}).stderr == logged.stderr
    else:
        assert running.raw(*command, environ={**settings, "MOCK_LOG": "xml"}).stderr.startswith(b"imds-detour: ")


MAIN = "import os, sys, types; from imds_detour.ctl import main; {}; sys.exit(main.main())"
NO_FILE = "main.verb = lambda _: types.SimpleNamespace(run=lambda _: os.stat('/no/file'))"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("sh", "-c", f"{CTL} --help > /dev/full"), "cannot write to stdout: No space left on device"),
        (
            (sys.executable, "-c", MAIN.format(NO_FILE), "check"),
            "the system refuses: [Errno 2] No such file or directory: '/no/file'",
        ),
    ],
    ids=["full disk", "unexpected OSError"],
)
def test_failure_of_the_system_is_one_line(running: Network, command: tuple[str, ...], line: str) -> None:
    """A full disk and an unexpected OSError are one line each, with status 125."""
    done = running.raw(*command, environ={"PATH": "/bin"})
    assert (done.returncode, done.stdout, done.stderr.decode()) == (125, b"", f"imds-detour: {line}\n")


def test_colours_are_only_on_terminals(running: Network) -> None:
    """Doctor has colours on a terminal, and none with NO_COLOR, on a dumb terminal or in a pipe; JSON has none."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "PATH": PATH}
    status, text = on_a_terminal(running.app, CTL, "doctor", "--all", environ=settings)
    assert status == 0
    assert f"{GREEN}ok  \033[0m  who answers" in text
    status, text = on_a_terminal(running.app, CTL, "doctor", environ={**settings, "MOCK_PORT": "1"})
    assert status == 1
    assert f"{RED}fail\033[0m  TCP" in text
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, text = on_a_terminal(running.app, CTL, "doctor", "--all", environ={**settings, **plain})
        assert "ok    who answers" in text
        assert "\033[3" not in text
    piped = running.raw(CTL, "doctor", environ={**settings, "TERM": "xterm"})
    assert b"\033" not in piped.stdout + piped.stderr
    # An empty NO_COLOR is none (no-color.org).
    assert GREEN in on_a_terminal(running.app, CTL, "doctor", environ={**settings, "NO_COLOR": ""})[1]
    _, text = on_a_terminal(running.app, CTL, "status", "--json", environ={})
    assert text.startswith("{")
    assert "\033" not in text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_rows_of_the_doctor_wrap_below_their_column(running: Network, columns: int) -> None:
    """On a terminal a long text is wrapped at its words, below its column; in a pipe it is one line."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "PATH": PATH, "NO_COLOR": "1"}
    _, text = on_a_terminal(running.app, CTL, "doctor", "--all", environ=settings, columns=columns)
    rows = text.rpartition("\033[K")[2].split("\n\n")[0].splitlines()
    assert max(map(len, rows)) <= columns
    assert all(re.match(r"(ok  |skip)  \S| {33}\S", row) for row in rows)
    piped = ctl(running, "doctor", "--all", **settings).stdout.decode()
    assert re.sub(r"\n {33}", " ", "\n".join(rows)) == piped.split("\n\n")[0]
    assert any(row.startswith(" ") for row in rows) is (columns < 120)  # the control


def test_wait_on_a_terminal_shows_a_spinner(running: Network) -> None:
    """On a terminal a spinner shows the reason of the wait. At the end only the failure remains."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "1", "MOCK_TIMEOUT": "1", "PATH": PATH}
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


def test_control_characters_of_a_setting_are_escaped(running: Network) -> None:
    """Control characters in a setting are escaped on a terminal."""
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://x\033[31mred"}
    _, text = on_a_terminal(running.app, CTL, "doctor", "--all", environ=settings)
    assert "http://x\\x1b[31mred" in text
    assert f"{METADATA}" in text
