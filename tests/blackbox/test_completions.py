"""The completion scripts, in bash, zsh and fish themselves."""

import os
import pty
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from imds_detour.ctl import main
from imds_detour.ctl.commands.completion import FILES
from tests.support.hosts.network import CTL, Network

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
HOME = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
VALUES = {
    "init --backend ": ["auto", "env", "legacy", "nft"],
    "init --backend=n": ["nft"],
    "sidecar --guard c": ["chosen"],
    "mock --imdsv2 r": ["required"],
    "completion z": ["zsh"],
    "init --ba": ["--backend"],
    "doctor --mock mock --ba": ["--backend"],  # a value that is the name of a verb
    "plan --mo": ["--mock"],
    "init --mock ": [],
    "ch": ["check"],
}
"""What completes a command line of imds-detourctl."""

BASH = """
source "$1"
complete -p imds-detourctl >/dev/null || exit
read -r -a COMP_WORDS <<< "${2//=/ = }"
[[ $2 == *[\\ =] && ${COMP_WORDS[-1]} != = ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_imds_detourctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "source $argv[1]; complete -C $argv[2]"


def scripts() -> dict[str, str]:
    """Return what scripts/completions.py writes, by shell."""
    written: dict[str, str] = runpy.run_path(f"{ROOT}/scripts/completions.py")["scripts"]()
    return written


def shell(name: str, *arguments: str) -> list[str]:
    """Run a shell without its start-up files, and return the lines that it prints."""
    quiet = {"bash": ("--norc", "-c"), "fish": ("--no-config", "-c")}[name]
    done = subprocess.run([name, *quiet, *arguments], env=HOME, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.split("\t")[0] for line in done.stdout.splitlines() if line]


def offered(name: str, script: str, line: str) -> list[str]:
    """Return what bash or fish offers for a command line."""
    command = (BASH, "bash", script) if name == "bash" else (FISH, script)
    words = shell(name, *command, f"imds-detourctl {line}")
    return sorted(word.rpartition("=")[2] for word in words)


def flags(verb: str) -> list[str]:
    """Return the flags of a verb, by its help."""
    listed = re.findall(r"^  (?:-h, )?(--[^ ].*?)(?:  |$)", parser_help(verb), re.MULTILINE)
    return sorted(word for text in listed for word in re.findall(r"--[a-z0-9-]+", text))


def parser_help(verb: str) -> str:
    """Return the help of a verb."""
    words = [verb, *{"completion": ["bash"], "copy": ["/volume"]}.get(verb, [])]
    text: str = main.parser([verb]).parse_args(words).parser.format_help()
    return text.partition("\nexamples")[0]


def test_scripts_are_those_of_the_parser() -> None:
    """Each script is what scripts/completions.py writes now; run it after a change of verbs, flags or their help."""
    for name, text in scripts().items():
        with open(FILES[name], encoding="utf-8") as file:
            assert file.read() == text, "run .venv/bin/python scripts/completions.py"


def test_completion_prints_the_script(running: Network) -> None:
    """`completion SHELL` prints the shell's script."""
    for name, text in scripts().items():
        assert running.app.run(CTL, "completion", name).stdout == text


@pytest.mark.parametrize("name", ["bash", "fish"])
def test_shell_offers_verbs_flags_and_values(name: str) -> None:
    """Bash and fish offer every verb, every flag of a verb, and the values of a flag, and nothing for other values."""
    script = FILES[name]
    assert shutil.which(name), f"apt-get install {name}: scripts/setup test does"
    assert set(main.VERBS) <= set(offered(name, script, ""))
    for verb in main.VERBS:
        assert [word for word in offered(name, script, f"{verb} --") if word.startswith("--")] == flags(verb)
    assert {line: offered(name, script, line) for line in VALUES} == VALUES
    assert "README.md" in offered(name, script, "mock --data READ")


class Zsh:
    """An interactive zsh on a terminal."""

    def __init__(self, folder: Path) -> None:
        """Start it; ``folder`` has its .zshrc, which ends with a line that says "ready"."""
        self._own, terminal = pty.openpty()
        settings = {**HOME, "TERM": "vt100", "ZDOTDIR": str(folder)}
        command = ("zsh", "--no-globalrcs", "-i")
        self._process = subprocess.Popen(
            command, env=settings, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self._read_until(r"ready")

    def completed(self, line: str) -> str:
        """Return the command line after the Tab key."""
        os.write(self._own, f"imds-detourctl {line}\t\x07".encode())
        return self._read_until(r"<imds-detourctl ([^<>]*)>")[1].rstrip(" =")

    def _read_until(self, pattern: str) -> re.Match[str]:
        shown = ""
        while not (match := re.search(pattern, shown)):
            shown += os.read(self._own, 4096).decode(errors="replace")
        return match

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._own)


ZSHRC = {
    "sourced": "autoload -U compinit; compinit -u -D; source {file}",
    "found in fpath": "fpath=({folder} $fpath); autoload -U compinit; compinit -u -D",
}
WIDGET = """
show() {{ zle -I; print -r -- "<$BUFFER>"; BUFFER= }}
zle -N show; bindkey '^G' show; bindkey '^I' complete-word; unsetopt beep
print ready
"""


@pytest.mark.parametrize("way", ZSHRC)
def test_zsh_completes_verbs_flags_and_values(way: str, tmp_path: Path) -> None:
    """On a terminal zsh completes verbs, every flag that one letter is missing of, values and files."""
    assert shutil.which("zsh"), "apt-get install zsh: scripts/setup test does"
    load = ZSHRC[way].format(file=FILES["zsh"], folder=os.path.dirname(FILES["zsh"]))
    (tmp_path / ".zshrc").write_text(load + WIDGET.format())
    zsh = Zsh(tmp_path)
    try:
        unique = {line: words[0] for line, words in VALUES.items() if len(words) == 1}
        expected = {line: re.sub(r"[^ =]*$", "", line) + word for line, word in unique.items()}
        expected["mock --data READ"] = "mock --data README."  # of both READMEs
        for verb in main.VERBS:
            for flag in (every := flags(verb)):
                if sum(other.startswith(flag[:-1]) for other in every) == 1:
                    expected[f"{verb} {flag[:-1]}"] = f"{verb} {flag}"
        assert {line: zsh.completed(line) for line in expected} == expected
        assert zsh.completed("init --mock ") == "init --mock"  # the control: nothing completes any text
    finally:
        zsh.close()
