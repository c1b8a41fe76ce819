"""A failed build of the bundle prints one line without a traceback, and keeps the previous bundle."""

import subprocess
import sys
from pathlib import Path

import pytest
from bundle.programs import BundleError, run

from imds_detour.ctl.lab.hosts import environ
from tests.bundle.conftest import PROJECT

pytestmark = pytest.mark.slow


def test_missing_package_index_is_one_line(tmp_path: Path) -> None:
    """Without a package index the build fails with pip's reason in one line, and the previous bundle stays."""
    target = tmp_path / "imds-detour"
    target.mkdir()
    done = subprocess.run(
        (sys.executable, "-m", "bundle", str(target)),
        cwd=PROJECT,
        env=environ(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert done.stderr.startswith("bundle: python -m pip download ")
    assert "Could not find a version that satisfies the requirement dnspython" in done.stderr
    assert target.is_dir()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ("sh", "-c", "echo note >&2; echo 'a.c:1: error: no such thing' >&2; echo bye >&2; exit 1"),
            "a.c:1: error: no",
        ),
        (("sh", "-c", "echo first >&2; echo last >&2; exit 1"), "exit 1: last"),
        (("sh", "-c", "echo said on stdout; exit 1"), "said on stdout"),
        (("false",), "false: 1"),
        (("/no/such/program",), "/no/such/program: No such file or directory"),
    ],
)
def test_failed_program_is_quoted(command: tuple[str, ...], words: str) -> None:
    """The error of a failed program quotes its reason. The control is a program that succeeds."""
    with pytest.raises(BundleError) as caught:
        run(*command)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run("echo", "well") == "well\n"
