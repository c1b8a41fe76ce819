"""What the documents tell to type: shell, Compose, Dockerfiles and flags; and the headings that doctor links to."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from imds_detour.ctl import doctor
from imds_detour.ctl.doctor.result import CheckResult, State
from imds_detour.ctl.main import VERBS, verb
from tests.support.documents import DOCUMENTS, FENCE, LINK, READMES, ROOT, anchors, blocks, read

GUIDE = "docs/troubleshooting.md"
LANGUAGES = {"", "sh", "yaml", "json", "dockerfile", "diff", "text", "python"}
"""The languages of code blocks, for each of which a test of the documents checks something."""


def bad_shell(code: str) -> str:
    """Return what a shell says about a script that it cannot parse, else an empty string."""
    return subprocess.run(["sh", "-n"], input=code, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_blocks_are_valid(name: str) -> None:
    """A shell can parse each shell block, and the parsers of YAML, JSON and Python each block of theirs."""
    assert {kind for kind, _ in FENCE.findall(read(name))} <= LANGUAGES
    assert [bad_shell(code) for code in blocks(name, "sh") if bad_shell(code)] == []
    for code in blocks(name, "yaml"):
        assert isinstance(yaml.safe_load(code), dict), code
    for code in blocks(name, "json"):
        assert isinstance(json.loads(code), dict), code
    for code in blocks(name, "python"):
        compile(code, name, "exec")


def test_invalid_code_is_detected() -> None:
    """Negative control: an open quote, and YAML with an open bracket, are errors."""
    assert bad_shell("echo 'x\n")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("services: {app: [")


HADOLINT = shutil.which("hadolint", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
IMAGES = {f"{name} {number}": code for name in DOCUMENTS for number, code in enumerate(blocks(name, "dockerfile"))}


@pytest.mark.parametrize("image", IMAGES)
def test_dockerfile_block_passes_hadolint(image: str) -> None:
    """Each Dockerfile block passes hadolint at its strictest level; one without FROM is the end of a Dockerfile."""
    assert HADOLINT, "the extra `dev` brings it: scripts/setup test"
    code = IMAGES[image]
    whole = code if re.search("^FROM ", code, re.MULTILINE) else f"FROM debian:bookworm-slim\n{code}"
    # DL3022: --from names an image, not a stage
    command = [HADOLINT, "--failure-threshold", "style", "--ignore", "DL3022", "-"]
    done = subprocess.run(command, input=whole, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def flags(name: str) -> set[str]:
    """Return the flags of a verb of imds-detourctl."""
    from argparse import ArgumentParser  # noqa: PLC0415  (as in imds_detour.ctl.main)

    parser = ArgumentParser()
    verb(name).add_arguments(parser)
    return {flag for action in parser._actions for flag in action.option_strings}  # noqa: SLF001


FLAGS = {name: flags(name) for name in VERBS}
FOREIGN = {
    "--help",
    "--version",
    "--network",
    "--entrypoint",
    "--platform",
    "--user",
    "--cap-add",
    "--ec2-server",
    "--format",
}
"""Flags that documents name alone, of docker and other tools."""


def unknown_flags(code: str) -> list[str]:
    """Return the flags that follow a verb of imds-detourctl in code, and that the verb does not have."""
    joined = code.replace("\\\n", " ")
    uses = re.findall(r"imds-detourctl ([a-z]+)((?: [^\n|&;`#]*)?)", joined)
    return [
        f"{name} {flag}"
        for name, rest in uses
        if name in FLAGS
        for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", re.sub(r"'[^']*'", "", rest))
        if flag not in FLAGS[name] | FOREIGN
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_flags_exist(name: str) -> None:
    """Each flag that a document gives to a verb of imds-detourctl, or names alone, exists."""
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", read(name)))
    assert [unknown for code in [*inline, *blocks(name, "sh")] for unknown in unknown_flags(code)] == []
    if name.startswith(("docs/", "README")):
        alone = {code.split()[0].partition("=")[0] for code in inline if code.startswith("--")}
        assert alone <= set.union(*FLAGS.values()) | FOREIGN


def test_unknown_flags_are_detected() -> None:
    """Negative control: a flag of another verb is reported; those of the app, or in quotes, are not."""
    quotes = "imds-detourctl mock --credential-process 'aws --profile x' & x --y"
    code = f"imds-detourctl init --host \\\n  --listen x\n{quotes}\n"
    assert unknown_flags(code) == ["init --listen"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_in_commands_exist(name: str) -> None:
    """Each Compose file, Dockerfile and build target in a command of docker, and each folder for kubectl, exists."""
    code = "\n".join(blocks(name, "sh"))
    named = re.findall(r"docker (?:compose|build) (?:-f|--file) (\S+)", code) + re.findall(r"apply -k (\S+)", code)
    assert [path for path in named if "..." not in path and not os.path.exists(f"{ROOT}/{path}")] in ([], ["mock"])
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", read("docker/Dockerfile"), re.MULTILINE))
    assert set(re.findall(r"docker/Dockerfile --target (\w+)", code)) <= stages


@pytest.mark.parametrize("name", DOCUMENTS)
def test_headings_of_a_page_differ(name: str) -> None:
    """No two headings of a page have the same link. The changelog repeats its own for each version."""
    if name != "CHANGELOG.md":
        assert len(set(anchors(read(name)))) == len(anchors(read(name)))


ROWS = (*doctor.CONTAINER_CHECKS, *doctor.MOCK_CHECKS, *doctor.APP_CHECKS)


def rows_without_heading(page: str) -> list[str]:
    """Return the rows of doctor whose link has no heading in a text of the page."""
    links = {row: CheckResult(State.FAIL, "seen", name=f"{row} (aws)").see for row in ROWS}
    return [row for row, link in links.items() if link.removeprefix(f"{GUIDE}#") not in anchors(page)]


def test_each_row_of_doctor_has_its_heading() -> None:
    """The page has exactly doctor's rows as headings, in order. Control: without the last, its row is reported."""
    section = read(GUIDE).partition("\n## The rows of doctor\n")[2]
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == list(ROWS)
    assert rows_without_heading(read(GUIDE)) == []
    assert rows_without_heading(read(GUIDE).rpartition("\n### ")[0]) == [ROWS[-1]]


@pytest.mark.parametrize("state", State)
def test_only_failures_and_warnings_link_to_a_heading(state: State) -> None:
    """A row that fails or warns has a link; the others have none."""
    assert bool(CheckResult(state, "seen", name="TCP").see) is (state in (State.FAIL, State.WARN))


@pytest.mark.parametrize("readme", READMES)
def test_readme_links_the_ten_commonest_lines(readme: str) -> None:
    """A README links ten last lines of a start, in their words, to the page's headings."""
    lines = re.findall(r"\[([^\]]+)\]\(docs/troubleshooting\.md#([\w-]+)\)", read(readme))
    quoted = [text for text, anchor in lines if anchors(f"# {text}") == [anchor]]
    assert len(quoted) == 10
    assert len(LINK.findall(read(readme))) > 30
