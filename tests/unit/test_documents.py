"""The documents agree with the code: links, tests, targets, verbs and settings. Both READMEs have the same content."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from ipaddress import IPv4Address, ip_address
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from bench import readme
from bench.phrases import LANGUAGES

from imds_detour.config.mock_address import MockAddress
from imds_detour.config.presets import GUARDED_ADDRESSES, PRESETS
from imds_detour.config.services import parse_services
from imds_detour.config.variables import BY_NAME, VARIABLES
from imds_detour.ctl.commands import status
from imds_detour.ctl.main import VERBS
from imds_detour.endpoint import Endpoint
from imds_detour.firewall.render import redirect_rules
from imds_detour.firewall.rules import LEGACY, Redirect, guard_rules
from tests.support.documents import DOCUMENTS, FENCE, LINK, READMES, ROOT, anchors, blocks, read

COPY_LINE = "COPY --from=imds-detour /opt/imds-detour /opt/imds-detour"
STAGE_LINES = ["ARG IMDS_DETOUR=imds-detour", "FROM ${IMDS_DETOUR} AS imds-detour"]
ENTRYPOINT_LINE = 'ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]'


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_have_targets(document: str) -> None:
    """Each relative link to a file, a picture or a heading has a target."""
    broken = []
    for link in LINK.findall(FENCE.sub("", read(document))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
        if not os.path.exists(f"{ROOT}/{target}") or (anchor and anchor not in anchors(read(target))):
            broken.append(link)
    assert broken == []


def test_link_patterns_match_links_and_headings() -> None:
    """Negative control: the patterns of the link test match links, pictures and headings, and not code."""
    assert LINK.findall("see [that](docs/no.md#x), ![a picture](no.svg)") == ["docs/no.md#x", "no.svg"]
    assert set(anchors("# A title\n## 1. It's `so`: one, two\n```sh\n# no title\n```\n")) == {
        "a-title",
        "1-its-so-one-two",
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_tests_settings_targets_and_verbs_exist(document: str) -> None:
    """Named test files, MOCK_ variables, make targets and verbs exist; a service after `--entrypoint` is no verb."""
    tests = set(re.findall(r"\btests/[\w/]+\.py\b", read(document)))
    assert sorted(name for name in tests if not os.path.exists(f"{ROOT}/{name}")) == []
    settings = set(re.findall(r"\bMOCK_[A-Z_]+[A-Z]\b", read(document)))
    others = {"MOCK_IMAGE", "MOCK_METADATA_PORT"}  # of compose.yaml, and what Kubernetes derives from a Service
    assert settings - set(BY_NAME) <= others
    inline = re.findall(r"`[^`\n]+`", FENCE.sub("", read(document)))
    code = "\n".join([*inline, *(code for kind, code in FENCE.findall(read(document)) if kind != "text")])
    targets = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", code)) <= targets
    code = re.sub(r"--entrypoint \S+ \S+", "imds-detourctl", code)
    assert set(re.findall(r"\bimds-detourctl(?:\",)? \"?([a-z]+)", code)) <= set(VERBS)


NAMED_TEST = re.compile(r"\b(\w+/test_\w+\.py)::(test_\w+)")
CLAIMS = {"docs/reliability.md": ("What it cannot do",), "docs/threats.md": ()}
"""The pages on promises and threats, and their sections that claim nothing that a test could show."""


def missing_tests(text: str) -> list[str]:
    """Return the tests that a text names as `file::test`, below tests/, and that do not exist."""
    return [
        f"{file}::{test}"
        for file, test in NAMED_TEST.findall(text)
        if not os.path.exists(f"{ROOT}/tests/{file}") or f"\ndef {test}(" not in read(f"tests/{file}")
    ]


def claims_without_test(text: str, exempt: tuple[str, ...]) -> list[str]:
    """Return the rows and items of a page's sections that name no test and do not say "(no test)"."""
    claims: list[str] = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        heading, _, content = section.partition("\n")
        rows = re.findall(r"^\|(?!-).*", re.sub(r"^\|.*\n(?=\|-)", "", content, flags=re.MULTILINE), re.MULTILINE)
        items = re.findall(r"^(?:- |\d+\. ).*(?:\n  +.*)*", content, re.MULTILINE)
        if heading not in exempt:
            claims += (claim for claim in (*rows, *items) if not NAMED_TEST.search(claim) and "(no test)" not in claim)
    return claims


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_tests_exist(document: str) -> None:
    """Each test that a document names as `file::test` exists."""
    assert missing_tests(read(document)) == []


@pytest.mark.parametrize("document", CLAIMS)
def test_each_claim_names_its_test(document: str) -> None:
    """Each row and item of the pages on promises and threats names its test, or says that there is none."""
    assert claims_without_test(read(document), CLAIMS[document]) == []
    assert len(NAMED_TEST.findall(read(document))) > 30


def test_missing_tests_and_unbacked_claims_are_detected() -> None:
    """Negative control: a missing file, a missing test, and a row and an item without a test are reported."""
    real = "unit/test_documents.py::test_named_tests_exist"
    missing = ["unit/test_nothing.py::test_x", "unit/test_documents.py::test_x"]
    assert missing_tests(" ".join([real, *missing])) == missing
    table = f"| it can | result |\n|---|---|\n| do | {real} |\n| be | no |\n"
    items = f"- one\n  {real}\n- two (no test)\n- three,\n  four\n"
    page = f"# A page\n\n## A section\n\n{table}\n{items}\n## Not here\n\n- x\n"
    assert claims_without_test(page, ("Not here",)) == ["| be | no |", "- three,\n  four"]


def test_listed_rules_are_those_of_the_code() -> None:
    """The listed rules are all rules of the guard of one address and of its redirect, and the guard's size is right."""
    (listing,) = blocks("docs/how-it-works.md", "text")
    end, mock = Endpoint(IPv4Address("169.254.169.254"), 80), Endpoint(IPv4Address("172.20.0.2"), 1338)
    rules = (*guard_rules([end.address], LEGACY), *redirect_rules([Redirect(end, mock)], LEGACY))
    lines = listing.splitlines()
    assert sorted(line for line in lines if line[0] != "*") == sorted(rule.spec for rule in rules)
    versions = [address.version for address in GUARDED_ADDRESSES]
    assert f" {len(versions)} addresses, {versions.count(6)} of them IPv6" in read("docs/how-it-works.md")


@pytest.mark.parametrize("readme", READMES)
def test_readme_is_short(readme: str) -> None:
    """A README has at most 160 lines; the rest is in docs/, and docs/README.md lists each page there."""
    assert len(read(readme).splitlines()) <= 160
    pages = {os.path.basename(name) for name in DOCUMENTS if os.path.dirname(name) == "docs"} - {"README.md"}
    assert pages <= set(LINK.findall(read("docs/README.md")))


def test_listed_metadata_addresses_are_the_guarded_ones() -> None:
    """The page on threats lists exactly the addresses of the guard."""
    cells = re.findall(r"^\| ([\da-f.:]+(?:, [\da-f.:]+)*) \|", read("docs/threats.md"), re.MULTILINE)
    assert {ip_address(text) for cell in cells for text in cell.split(", ")} == set(GUARDED_ADDRESSES)


@pytest.mark.parametrize("readme", READMES)
def test_readme_compose_file_is_short_and_equals_the_examples(readme: str) -> None:
    """The README's Compose file has nine lines, NET_ADMIN, known settings, and equals examples/compose.yaml."""
    (code,) = blocks(readme, "yaml")
    assert len(code.splitlines()) == 9
    services, shown = yaml.safe_load(read("examples/compose.yaml"))["services"], yaml.safe_load(code)["services"]
    assert shown["app"]["cap_add"] == ["NET_ADMIN"]
    assert set(shown["app"]["environment"]) <= set(BY_NAME)
    assert {**services["app"], "build": "."} == shown["app"]
    assert services["mock_metadata"]["image"].endswith(f":-{shown['mock_metadata']['image']}}}")


YAML_FILES = sorted(glob.glob("**/*.yaml", root_dir=ROOT, recursive=True))
SNIPPETS = {
    **{name: read(name) for name in YAML_FILES if "\nservices:" in f"\n{read(name)}"},
    **{f"{name}, snippet": code for name in DOCUMENTS for code in blocks(name, "yaml") if code.startswith("services:")},
}
FROM_THE_SCRIPT = ("docs/from-the-script.md", "docs/from-the-script.es.md")
"""Their Compose file is the one that the reader has, so it stays as it is; the page ends with `cap_drop`."""


def with_net_raw(compose: str) -> list[str]:
    """Return the services of a Compose file behind imds-detour, or beside its sidecar, that keep NET_RAW."""
    services, net_raw = yaml.safe_load(compose)["services"], {"ALL", "NET_RAW"}

    def is_redirected(service: dict[str, Any]) -> bool:
        of_another = service.get("network_mode", "").removeprefix("service:")
        return any(variable.startswith("MOCK_HOSTNAME") for variable in service.get("environment", ())) or (
            of_another in services and is_redirected(services[of_another])
        )

    return [
        name
        for name, service in services.items()
        if is_redirected(service)
        and (net_raw.isdisjoint(service.get("cap_drop", ())) or not net_raw.isdisjoint(service.get("cap_add", ())))
    ]


@pytest.mark.parametrize("name", SNIPPETS)
def test_compose_files_drop_net_raw(name: str) -> None:
    """Each service behind imds-detour, or beside its sidecar, drops NET_RAW and does not add it again."""
    assert with_net_raw(SNIPPETS[name]) == []


def test_net_raw_is_detected_in_a_compose_file() -> None:
    """Negative control: an app and a neighbour without `cap_drop`, or with NET_RAW added again, are reported."""
    app = {"environment": {"MOCK_HOSTNAME": "mock"}, "cap_drop": ["NET_RAW"]}
    services = {
        "mock": {},
        "good": app,
        "open": {"environment": ["MOCK_HOSTNAME=mock"]},
        "added": {**app, "cap_add": ["NET_RAW"]},
        "neighbour": {"network_mode": "service:good"},
    }
    assert with_net_raw(json.dumps({"services": services})) == ["open", "added", "neighbour"]
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize("name", FROM_THE_SCRIPT)
def test_page_on_the_script_ends_with_cap_drop_and_its_diff_is_right(name: str) -> None:
    """The reader's Compose file keeps NET_RAW, so the page says to drop it; its diff ends in its three lines."""
    (compose,), (diff,), (dockerfile,) = (blocks(name, language) for language in ("yaml", "diff", "dockerfile"))
    assert with_net_raw(compose) == ["debug"]
    assert "`cap_drop: [NET_RAW]`" in read(name).rpartition("\n## ")[2]
    assert "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[0] != "-") == dockerfile
    assert dockerfile.splitlines()[1:] == [COPY_LINE, ENTRYPOINT_LINE]
    assert len([line for line in diff.splitlines() if line[0] == "-"]) == 3


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


PAIRS = [READMES, FROM_THE_SCRIPT, ("docs/performance.md", "docs/performance.es.md")]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_both_languages_have_the_same_structure_and_code(pair: tuple[str, str]) -> None:
    """Both languages of a page have the same structure (control: without the last row), pictures and code."""
    english, spanish = map(read, pair)
    assert shape(english) == shape(spanish)
    assert shape("".join(english.rpartition("\n| ")[::2])) != shape(spanish)
    for language in ("yaml", "dockerfile", "diff", "text"):
        assert blocks(pair[0], language) == blocks(pair[1], language)
    kept = [[re.sub(r"\s+#.*", "", code) for code in blocks(name, "sh")] for name in pair]
    assert kept[0] == kept[1]
    pictures = [re.findall(r"\(([\w./]+?)(?:\.es)?\.svg\)", text) for text in (english, spanish)]
    assert pictures[0] == pictures[1]


def test_both_readmes_have_the_same_pictures_settings_and_statuses() -> None:
    """Both READMEs have the same diagram but for its text, the settings of the code, and the exit statuses."""
    english, spanish = (read(readme) for readme in READMES)
    diagrams = [re.sub(r">[^<>{}]+<", "><", read(f"docs/detour{language}.svg")) for language in ("", ".es")]
    assert diagrams[0] == diagrams[1]  # without their text
    rows = [re.findall(r"^\| (`MOCK_\w+`) \|", text, re.MULTILINE) for text in (english, spanish)]
    assert rows[0] == rows[1] == [f"`{variable.name}`" for variable in VARIABLES]
    statuses = [re.findall(r"(?m)^\| (\d+(?:\+n|, \d+)?)(?:, \d+ \w+ \d+)? \|", text) for text in (english, spanish)]
    assert statuses[0] == statuses[1] == ["125", "126, 127", "128+n", "1"]


@pytest.mark.parametrize("picture", sorted(glob.glob("**/*.svg", root_dir=f"{ROOT}/docs", recursive=True)))
def test_picture_is_well_formed_and_self_contained(picture: str) -> None:
    """Each SVG is well formed, has a title, and loads no font or picture from another address."""
    tree = ET.fromstring(read(f"docs/{picture}"))  # noqa: S314  (a file of this project)
    assert tree.findtext("{http://www.w3.org/2000/svg}title")
    assert not re.search(r"href|url\((?!#)|@import", read(f"docs/{picture}"))


EXAMPLES = sorted(glob.glob(f"{ROOT}/examples/*/Dockerfile"))
DOCKERFILES = sorted(EXAMPLES + glob.glob(f"{ROOT}/docker/*Dockerfile") + glob.glob(f"{ROOT}/tests/docker/*Dockerfile"))


@pytest.mark.parametrize("name", [*DOCUMENTS, *(os.path.relpath(file, ROOT) for file in DOCKERFILES)])
def test_docker_run_with_net_admin_drops_net_raw(name: str) -> None:
    """Each `docker run` that adds NET_ADMIN drops NET_RAW, or every other capability."""
    commands = re.findall(r"docker run [^\n`]*--cap-add NET_ADMIN", read(name))
    assert [command for command in commands if "--cap-drop" not in command] == []


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: os.path.relpath(file, ROOT))
def test_dockerfile_passes_hadolint(file: str) -> None:
    """Each Dockerfile passes hadolint at its strictest level."""
    hadolint = shutil.which("hadolint", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    assert hadolint, "the extra `dev` brings it: scripts/setup test"
    done = subprocess.run([hadolint, "--failure-threshold", "style", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: os.path.relpath(file, ROOT))
def test_example_dockerfile_ends_with_copy_entrypoint_and_cmd(file: str) -> None:
    """One line names imds-detour's image. The last stage has the COPY line, the ENTRYPOINT, and a CMD.

    ENTRYPOINT discards the base image's CMD.
    """
    with open(file) as text:
        lines = [line for line in text.read().splitlines() if line and not line.startswith("#")]
    assert lines[:2] == STAGE_LINES
    assert [line for line in lines[2:] if "imds-detour" in line] == [COPY_LINE, ENTRYPOINT_LINE]
    assert lines[-3:-1] == [COPY_LINE, ENTRYPOINT_LINE]
    assert lines[-1].startswith('CMD ["')
    assert not any(line.startswith("USER ") for line in lines), "that takes NET_ADMIN away: MOCK_USER"
    copied = [word for line in lines if re.match("COPY (?!--from)", line) for word in line.split()[1:-1]]
    assert [name for name in copied if not os.path.exists(f"{os.path.dirname(file)}/{name}")] == []


@pytest.mark.parametrize("name", LANGUAGES)
def test_figures_equal_the_results(name: str) -> None:
    """The figures of a page are those of bench/results.json, by `python -m bench.readme`. Control: another figure."""
    results = json.loads(read("bench/results.json"))
    assert readme.replaced(read(name), readme.section(results, name)) == read(name)
    for row in results["rows"]:
        row["value"]["middle"] += 100
    assert readme.replaced(read(name), readme.section(results, name)) != read(name)


def test_make_help_lists_each_target_in_two_groups() -> None:
    """`make help` lists each target but itself once, in two groups, in 80 columns."""
    shown = subprocess.run(["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^(\S.*):$", shown, re.MULTILINE) == ["use imds-detour", "work on imds-detour"]
    targets = re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE)
    assert re.findall(r"^  (\S+) +\S", shown, re.MULTILINE) == [target for target in targets if target != "help"]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", [name for name in LANGUAGES if name.startswith("docs/")])
def test_page_on_performance_has_no_other_figure(name: str) -> None:
    """All figures of the pages on performance are in the section that is written from the results."""
    assert re.findall(r"\d+", readme.replaced(read(name), "")) == []
    assert re.findall(r"\d+", read(name))


def test_readmes_count_the_clients_of_the_table() -> None:
    """The READMEs' number of tested clients is that of the table's rows."""
    rows = read("docs/clients.md").partition("|---|")[2].partition("<!--")[0].splitlines()[1:]
    assert len(rows) == 15
    assert "[Fifteen clients](docs/clients.md)" in read("README.md")
    assert "[quince clientes](docs/clients.md)" in read("README.es.md")


def test_status_keys_are_documented() -> None:
    """The documents list exactly the keys of `status --json`, in its order; netns/test_json.py plays the others."""
    section = read("docs/status.md").partition("## status --json")[2].partition("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert keys == list(status.facts(status.Status((), (), None, {})))


def endpoints(name: str) -> list[str]:
    """Return the values of MOCK_ENDPOINTS that a document shows."""
    return re.findall(r"MOCK_ENDPOINTS=([\w.:=,-]+)", read(name)) + re.findall(
        r"^\| `MOCK_ENDPOINTS` \|.*: ([\w.:=,-]+) \|$", read(name), re.MULTILINE
    )


@pytest.mark.parametrize("name", [*READMES, "docs/clouds.md"])
def test_documented_mock_endpoints_are_valid(name: str) -> None:
    """Each documented value of MOCK_ENDPOINTS is accepted. The control, two mocks for one address, is refused."""
    default = MockAddress("mock_metadata", 1338)
    assert endpoints(name)
    for example in endpoints(name):
        assert parse_services(example, lambda: default)
    with pytest.raises(ValueError, match="give them the same mock"):
        parse_services("aws,ecs=creds:80,gcp=gce:8080", lambda: default)


def test_listed_services_are_the_presets() -> None:
    """The page on clouds has each preset with its addresses, in the code's order; the READMEs send readers there."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", read("docs/clouds.md"), re.MULTILINE)
    presets = [(name, ", ".join(str(at.address) for at in preset.endpoints)) for name, preset in PRESETS.items()]
    assert rows == presets
    assert {at.port for preset in PRESETS.values() for at in preset.endpoints} == {80}
    assert all("(docs/clouds.md)" in read(readme) for readme in READMES)
