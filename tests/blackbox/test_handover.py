"""The app's arguments, environment and exit status are the same with and without imds-detour."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hosts.cloud import LONG
from tests.support.hosts.network import DETOUR, MOCK, PORT, SETTINGS, Network

SHELL_ARGV: tuple[bytes, ...] = (b"sh", b"-c", b"cat /proc/$$/cmdline", b"sh")
"""A program that prints its own argv with NULs, and accepts more words."""
NAIVE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
"""A plain wrapper in Python, the negative control."""
RAW_EXECVE = """
import ctypes, os, signal, sys
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
words = [os.fsencode(word) for word in sys.argv[1:]]
vector = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
entries = sys.stdin.buffer.read().split(b"\\0")[:-1]
ctypes.CDLL(None).execve(words[0], vector(words), vector(entries))
"""
"""Start a program with the environment on stdin, which may have duplicates: a NUL after each entry."""


def with_environ(network: Network, entries: Sequence[bytes], *command: str) -> bytes:
    """Run a command with exactly these entries as its environment, and return its output."""
    done = network.raw(sys.executable, "-c", RAW_EXECVE, *command, environ={}, stdin=joined(entries))
    assert done.returncode == 0, done.stderr
    return done.stdout


def joined(words: Sequence[bytes]) -> bytes:
    """Return words in the format of /proc/pid/cmdline and environ."""
    return b"".join(word + b"\0" for word in words)


ODD_WORDS: tuple[bytes, ...] = (
    *(b"", b" ", b"two words", b"new\nline", b"*", b"$HOME", b"`id`", b"-x", b"--", b"--help", b"'\"\\"),
    bytes(range(1, 256)),
    b"\xed\xa0\x80\xed\xb2\x80",  # encoded surrogates
    b"\xf4\x90\x80\x80",  # beyond Unicode
    "grüße \N{SNOWMAN}".encode(),
    b"",
)


@pytest.mark.parametrize("locale", ["LC_ALL=C", "LC_ALL=C.UTF-8", "LC_ALL=POSIX", "LC_CTYPE=C", "LANG=C", ""])
def test_arguments_reach_the_app_unchanged(running: Network, locale: str) -> None:
    """In each locale the app's argv has exactly the bytes of the command line, also of 100,000 in one argument."""
    words = (*SHELL_ARGV, *ODD_WORDS, b"\xff" * 100_000)
    environ = {**SETTINGS, **dict(pair.split("=") for pair in locale.split())}
    assert running.raw(DETOUR, *words, environ=environ).stdout == joined(words)


def test_only_the_first_double_dash_is_removed(running: Network, tmp_path: Path) -> None:
    """``imds-detour -- COMMAND`` runs COMMAND, and ``-- -- COMMAND`` runs the program ``--``."""
    program = tmp_path / "--"
    program.write_text("#!/bin/sh\nprintf '%s,' \"$@\"\n")
    program.chmod(0o755)
    environ = {**SETTINGS, "PATH": f"{tmp_path}:{SETTINGS['PATH']}"}
    assert running.raw(DETOUR, "--", "echo", "--", "a", environ=environ).stdout == b"-- a\n"
    assert running.raw(DETOUR, "--", "--", "--", "a", environ=environ).stdout == b"--,a,"


LOCALES: tuple[tuple[bytes, ...], ...] = (
    *((), (b"LANG=C",), (b"LC_ALL=C",), (b"LC_ALL=POSIX",), (b"LC_ALL=C.UTF-8",), (b"LC_CTYPE=C",), (b"LC_CTYPE=",)),
    *((b"LC_CTYPE=C.UTF-8",), (b"LC_CTYPE=no_WHERE",), (b"LC_CTYPE=POSIX", b"LC_CTYPE=C.UTF-8"), (b"LC_CTYPE",)),
)
REQUIRED = (f"MOCK_HOSTNAME={MOCK}".encode(), f"MOCK_PORT={PORT}".encode())
ODD_ENTRIES: tuple[bytes, ...] = (
    *(b"TWICE=1", b"BYTES=" + bytes(range(1, 256)), b"\xff\xfe=name", b"NO_EQUALS", b"=x", b"==", b"", b"EMPTY="),
    *(b"LINES=a\nb", b"TWICE=2", b"LARGE=" + b"x" * 100_000),
)


@pytest.mark.parametrize("locale", LOCALES, ids=lambda entries: b" ".join(entries).decode() or "none")
def test_environment_reaches_the_app_unchanged(running: Network, locale: tuple[bytes, ...]) -> None:
    """The app's environment keeps order, duplicates and invalid entries, without the LC_CTYPE that Python sets."""
    entries = (ODD_ENTRIES[0], *locale, *ODD_ENTRIES[1:], *REQUIRED)
    assert with_environ(running, entries, DETOUR, "/bin/cat", "/proc/self/environ") == joined(entries)


def test_plain_python_changes_the_environment(running: Network) -> None:
    """Negative control: under the C locale plain Python adds LC_CTYPE to the app's environment."""
    shown = with_environ(running, (b"A=1",), sys.executable, "-c", NAIVE, "/bin/cat", "/proc/self/environ")
    assert shown == b"A=1\0LC_CTYPE=C.UTF-8\0"


BYTES = st.integers(1, 255).map(lambda number: bytes([number]))
PIECES = st.one_of(
    st.lists(BYTES, max_size=40).map(b"".join),
    st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=20).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
    st.sampled_from([*ODD_WORDS, *(entry for entries in LOCALES for entry in entries), *ODD_ENTRIES]),
)
"""Words of a command line and entries of an environment: any bytes without NUL, and known odd ones."""
SIGNIFICANT = (b"MOCK_", b"PYTHON", b"LD_", b"GLIBC_", b"MALLOC_")
"""Prefixes of variables that affect imds-detour, a loader or a libc."""


@settings(max_examples=200 if LONG else 20)
@given(
    words=st.lists(PIECES, max_size=12),
    entries=st.lists(PIECES.filter(lambda entry: not entry.startswith(SIGNIFICANT)), max_size=12),
    at=st.integers(0, 12),
)
def test_any_arguments_and_environment_reach_the_app(
    running: Network, words: list[bytes], entries: list[bytes], at: int
) -> None:
    """Any bytes, in any number and order, reach the app as arguments and environment."""
    environ = [*entries[:at], *REQUIRED, *entries[at:]]
    argv = (b"/bin/sh", b"-c", b"/bin/cat /proc/$$/cmdline /proc/$$/environ", b"sh", *words)
    done = running.raw(sys.executable, "-c", RAW_EXECVE, DETOUR, *argv, environ={}, stdin=joined(environ))
    assert (done.returncode, done.stdout) == (0, joined(argv) + joined(environ)), done.stderr


STATUSES = range(256) if LONG else (0, 1, 2, 63, 64, 77, 124, 125, 126, 127, 128, 129, 130, 137, 143, 254, 255)
DEADLY = set(signal.valid_signals()) - {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),  # ignored by default
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),  # stop it
}
SOME = (1, 2, 3, 6, 9, 11, 13, 15, 25, 10, 64)


@pytest.mark.parametrize("status", STATUSES)
def test_exit_status_is_the_apps(running: Network, status: int) -> None:
    """The parent sees the app's exit status, also 125 to 127."""
    assert running.raw(DETOUR, "sh", "-c", f"exit {status}", environ=SETTINGS).returncode == status


@pytest.mark.parametrize("number", sorted(DEADLY) if LONG else SOME)
def test_parent_sees_the_signal_that_killed_the_app(running: Network, number: int) -> None:
    """The parent's wait status has the signal that killed the app, and not 128+n."""
    # A shell ignores SIGINT and SIGQUIT for a background command, and programs inherit that.
    start = ("prlimit", "--core=0", "env", "--default-signal")
    assert running.raw(*start, DETOUR, "sh", "-c", f"kill -{int(number)} $$", environ=SETTINGS).returncode == -number


def test_shell_form_is_left_to_the_shell(running: Network) -> None:
    """A command in Docker's shell form, ``/bin/sh -c "..."``, is expanded by the shell."""
    form = ("/bin/sh", "-c", "exec printf '%s|' \"$WORDS\" $WORDS")
    done = running.raw(DETOUR, *form, environ={**SETTINGS, "WORDS": "a  b"})
    assert (done.returncode, done.stdout) == (0, b"a  b|a|b|")


def test_socket_activation_works(running: Network) -> None:
    """LISTEN_PID is the app's process id, and the LISTEN_FDS descriptors are unchanged."""
    app = "[ \\$LISTEN_PID = \\$\\$ ] && readlink /proc/self/fd/3"
    script = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3</etc/hostname; exec {DETOUR} sh -c "{app}"'
    assert running.raw("sh", "-c", script, environ=SETTINGS).stdout == b"/etc/hostname\n"
