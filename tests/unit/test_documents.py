"""What the documents say is there: links, tests, targets, verbs and settings; and the Spanish README says the same."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
import yaml
from bench import readme

from imds_detour.config.mock_address import MockAddress
from imds_detour.config.services import parse_services
from imds_detour.config.variables import BY_NAME, VARIABLES
from imds_detour.ctl.commands import status
from imds_detour.ctl.main import VERBS

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
DOCUMENTS = sorted(
    os.path.relpath(file, ROOT)
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md", "bench/**/*.md")
    for file in glob.glob(f"{ROOT}/{pattern}", recursive=True)
)
READMES = ("README.md", "README.es.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPY_LINE = "COPY --from=imds-detour /opt/imds-detour /opt/imds-detour"
ENTRYPOINT_LINE = 'ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]'


@functools.cache
def read(name: str) -> str:
    """Return a file of the project."""
    with open(f"{ROOT}/{name}", encoding="utf-8") as file:
        return file.read()


def anchors(text: str) -> set[str]:
    """Return the names that a document's headings can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(name: str, language: str) -> list[str]:
    """Return a document's code blocks in a language."""
    return [code for kind, code in FENCE.findall(read(name)) if kind == language]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: str) -> None:
    """Files, pictures and headings."""
    broken = []
    for link in LINK.findall(FENCE.sub("", read(document))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
        if not os.path.exists(f"{ROOT}/{target}") or (anchor and anchor not in anchors(read(target))):
            broken.append(link)
    assert broken == []


def test_a_broken_link_is_seen() -> None:
    """The control: what the test above takes for links and headings."""
    assert LINK.findall("see [that](docs/no.md#x), ![a picture](no.svg)") == ["docs/no.md#x", "no.svg"]
    assert anchors("# A title\n## 1. It's `so`: one, two\n```sh\n# no title\n```\n") == {"a-title", "1-its-so-one-two"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_tests_that_are_named_are_there(document: str) -> None:
    """A claim that is backed by a test is backed by one that exists."""
    named = set(re.findall(r"\btests/[\w/]+\.py\b", read(document)))
    assert sorted(name for name in named if not os.path.exists(f"{ROOT}/{name}")) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_and_verbs_that_are_named_are_there(document: str) -> None:
    """In code, `make X` is a target and `imds-detourctl X` a verb, but for the service behind `--entrypoint`."""
    inline = re.findall(r"`[^`\n]+`", FENCE.sub("", read(document)))
    code = "\n".join([*inline, *(code for kind, code in FENCE.findall(read(document)) if kind != "text")])
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code)) <= targets
    code = re.sub(r"--entrypoint \S+ \S+", "imds-detourctl", code)
    assert set(re.findall(r"\bimds-detourctl(?:\",)? \"?([a-z]+)", code)) <= set(VERBS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_that_are_named_are_there(document: str) -> None:
    """No variable of an older version, and no slip of the pen."""
    others = {"MOCK_IMAGE"}  # of compose.yaml
    named = set(re.findall(r"\bMOCK_[A-Z_]+[A-Z]\b", read(document)))
    assert named - others - set(BY_NAME) <= {"MOCK_METADATA_PORT"}  # what Kubernetes derives from a Service


@pytest.mark.parametrize("readme", READMES)
def test_the_compose_file_of_the_readme_is_a_dozen_lines(readme: str) -> None:
    """And is one, with the capability and settings that we know."""
    (code,) = blocks(readme, "yaml")
    assert len(code.splitlines()) <= 12
    app = yaml.safe_load(code)["services"]["app"]
    assert app["cap_add"] == ["NET_ADMIN"]
    assert set(app["environment"]) <= set(BY_NAME)


def test_the_examples_compose_file_has_what_the_readmes_has() -> None:
    """The same two services with the same settings; what is built is one of the examples."""
    (code,) = blocks("README.md", "yaml")
    services, shown = yaml.safe_load(read("examples/compose.yaml"))["services"], yaml.safe_load(code)["services"]
    assert {**services["app"], "build": "."} == shown["app"]
    assert services["mock_metadata"]["image"].endswith(f":-{shown['mock_metadata']['image']}}}")


def test_both_diagrams_are_one_drawing() -> None:
    """Whoever changes one, changes the other: all but the words is the same."""
    one, other = (re.sub(r">[^<>{}]+<", "><", read(f"docs/detour{tongue}.svg")) for tongue in ("", ".es"))
    assert one == other


def shape(text: str) -> dict[str, object]:
    """Return the levels of a document's headings, the sizes of its tables, and the languages of its code blocks."""
    plain = FENCE.sub("", text)
    tables = re.findall(r"(?:^\|.*\n)+", plain, re.MULTILINE)
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", plain, re.MULTILINE)],
        "tables": [(len(table.splitlines()), table.partition("\n")[0].count("|")) for table in tables],
        "code": [kind for kind, _ in FENCE.findall(text)],
        "bullets": len(re.findall(r"^- ", plain, re.MULTILINE)),
    }


def test_both_readmes_are_built_alike() -> None:
    """Each heading, table, code block and bullet of one is in the other; the control lacks the last heading."""
    one, other = (read(readme) for readme in READMES)
    assert shape(one) == shape(other)
    assert shape(one.rpartition("\n## ")[0]) != shape(other)


def test_both_readmes_show_the_same() -> None:
    """Pictures, Compose file, Dockerfile lines, rules and names of settings; the words around them are translated."""
    one, other = (read(readme) for readme in READMES)
    for language in ("yaml", "dockerfile", "text"):
        kept = [[re.sub(r"\s+#.*", "", code) for code in blocks(readme, language)] for readme in READMES]
        assert kept[0] == kept[1]
    pictures = [re.findall(r"\(docs/(\w+)(?:\.es)?\.svg\)", text) for text in (one, other)]
    assert pictures[0] == pictures[1]
    rows = [re.findall(r"^\| (`MOCK_\w+`) \|", text, re.MULTILINE) for text in (one, other)]
    assert rows[0] == rows[1] == [f"`{variable.name}`" for variable in VARIABLES]
    statuses = [re.findall(r"^\| (\d+(?:\+n)?)(?:, \d+ \w+ \d+)? \|", text, re.MULTILINE) for text in (one, other)]
    assert statuses[0] == statuses[1] == ["125", "126", "127", "128+n", "1"]


@pytest.mark.parametrize("picture", sorted(glob.glob("**/*.svg", root_dir=f"{ROOT}/docs", recursive=True)))
def test_a_picture_is_whole_and_fetches_nothing(picture: str) -> None:
    """Well formed, with words for those who do not see it, and without a font or picture from elsewhere."""
    tree = ET.fromstring(read(f"docs/{picture}"))  # noqa: S314  (a file of our own)
    assert tree.findtext("{http://www.w3.org/2000/svg}title")
    assert not re.search(r"href|url\((?!#)|@import", read(f"docs/{picture}"))


DOCKERFILES = sorted(glob.glob(f"{ROOT}/examples/*/Dockerfile"))
EACH = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: os.path.basename(os.path.dirname(file)))


@EACH
def test_hadolint_has_nothing_to_say_of_an_example(file: str) -> None:
    """At its strictest."""
    hadolint = shutil.which("hadolint", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    assert hadolint, "the extra `dev` brings it: scripts/setup test"
    done = subprocess.run([hadolint, "--failure-threshold", "style", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@EACH
def test_an_examples_dockerfile_ends_with_the_two_lines(file: str) -> None:
    """One COPY line of ours, in the last stage, the entrypoint, and a command, for ENTRYPOINT clears the base's."""
    with open(file) as text:
        lines = [line for line in text.read().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if "imds-detour" in line] == [COPY_LINE, ENTRYPOINT_LINE]
    assert lines[-3:-1] == [COPY_LINE, ENTRYPOINT_LINE]
    assert lines[-1].startswith('CMD ["')
    assert not any(line.startswith("USER ") for line in lines), "that takes NET_ADMIN away: MOCK_USER"
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert [name for name in copied if not os.path.exists(f"{os.path.dirname(file)}/{name}")] == []


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_figures_are_those_of_the_last_whole_run(name: str) -> None:
    """Written by `python -m bench.readme` from bench/results.json; the control is a run with another figure."""
    results = json.loads(read("bench/results.json"))
    assert readme.replaced(read(name), readme.section(results, name)) == read(name)
    results["rows"][0]["value"]["middle"] += 100
    assert readme.replaced(read(name), readme.section(results, name)) != read(name)


def test_the_keys_of_status_are_documented() -> None:
    """All of them, and no other; in this order."""
    keys = re.findall(r"^\| `(\w+)` \|", read("docs/status.md"), re.MULTILINE)
    assert keys == list(status.facts(status.Status((), (), None, {})))


def endpoints(name: str) -> list[str]:
    """Return the values of MOCK_ENDPOINTS that a document shows."""
    return re.findall(r"MOCK_ENDPOINTS=([\w.:=,-]+)", read(name)) + re.findall(
        r"^\| `MOCK_ENDPOINTS` \|.*: ([\w.:=,-]+) \|$", read(name), re.MULTILINE
    )


@pytest.mark.parametrize("name", READMES)
def test_every_example_of_mock_endpoints_is_taken(name: str) -> None:
    """None is refused; the control is two services at one address with mocks of their own."""
    default = MockAddress("mock_metadata", 1338)
    examples = endpoints(name)
    assert len(examples) == 2
    for example in examples:
        assert parse_services(example, lambda: default)
    with pytest.raises(ValueError, match="give them the same mock"):
        parse_services("aws,ecs=creds:80,gcp=gce:8080", lambda: default)
