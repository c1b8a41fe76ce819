"""scripts/release: one version, one publisher, the text of a release, its files and its images."""

import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from release import changelog, check, files, images, names, places
from release.__main__ import main
from release.names import Publisher, ReleaseError

CHANGELOG = """# Changelog

## [Unreleased]

- A change that nobody has.

## [1.1.0] - 2026-02-03

### Added

- A thing.

## [1.0.0] - 2026-01-02

"""
OTHER = Publisher("quay.io", "someone-else")
SHA = "sha256:" + "ab" * 32
DOCKER = f"""#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
*inspect*) exit 1 ;;
*create*) ;;
*) while [ "$1" != --metadata-file ]; do shift; done
   echo '{{"containerimage.digest": "{SHA}"}}' >"$2"; exit "$STATUS" ;;
esac
"""
"""A program in place of docker, since no engine here has buildx: it notes its calls and writes buildx's metadata."""


@pytest.fixture
def copy(tmp_path: Path) -> str:
    """Return a folder with a copy of each file that has the version or the publisher."""
    repeated = {place.file for place in [*places.versions(), *places.owners()]}
    for name in [names.SOURCE, names.PUBLISH, names.CHANGELOG, *repeated]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(f"{names.ROOT}/{name}", tmp_path / name)
    return str(tmp_path)


def contents(root: str) -> dict[str, str]:
    """Return the text of each file below a folder."""
    return {name: Path(root, name).read_text() for name in places.files(root)}


def test_version_and_publisher_are_the_same_everywhere() -> None:
    """Labels, examples, manifests, links and pyproject.toml have the one version and the one publisher."""
    assert places.differing() == []
    assert {"docker/Dockerfile", "docker/app.Dockerfile", "deploy/kubernetes/README.md"} <= {
        place.file for place in places.versions()
    }
    assert {"pyproject.toml", "docker/Dockerfile", "examples/go/Dockerfile", ".github/ISSUE_TEMPLATE/config.yml"} <= {
        place.file for place in places.owners()
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.md", f"docker pull {names.publisher().image('ctl')}:9.9.9"),
        ("kustomization.yaml", "  - name: imds-detour-ctl\n    newName: imds-detour-ctl\n    newTag: 9.9.9\n"),
        ("b.yaml", "images: [{ name: imds-detour-mock, newName: registry.example/x, newTag: 9.9.9 }]"),
        ("docker/Dockerfile", "FROM scratch\nARG VERSION=9.9.9\n"),
        ("chart/Chart.yaml", "name: imds-detour\nversion: 9.9.9\n"),
        ("chart/Chart.yaml", 'appVersion: "9.9.9"\n'),
        ("feature/devcontainer-feature.json", '{\n    "id": "imds-detour",\n    "version": "9.9.9"\n}\n'),
        ("a.md", "https://HOST/PATH/imds-detour//deploy/kubernetes/sidecar?ref=v9.9.9"),
        ("a.md", "  - uses: another/imds-detour@REF"),
        ("c.md", "[issues](https://github.com/another/imds-detour/issues)"),
        ("d.Dockerfile", "COPY --from=ghcr.io/another/imds-detour /opt/imds-detour /opt/imds-detour"),
        ("e.yaml", 'image: "docker.io/example__owner/imds-detour-mock"'),
        ("f.md", "gh attestation verify FILE --repo another/imds-detour"),
    ],
)
def test_other_version_or_publisher_is_reported(file: str, text: str, copy: str) -> None:
    """Negative control: another version, owner or registry in any form is reported with file and line."""
    assert places.differing(copy) == []
    Path(copy, file).parent.mkdir(parents=True, exist_ok=True)
    Path(copy, file).write_text(text)
    (line,) = places.differing(copy)
    assert re.match(
        rf"{file}:\d+ has (9\.9\.9|github.com/another|ghcr.io/another|docker.io/example__owner), and ", line
    )


@pytest.mark.parametrize("text", ["registry.example/tools/imds-detour", "/opt/imds-detour", "mock.test/a/imds-detour"])
def test_names_that_readers_replace_and_paths_are_no_publisher(text: str, copy: str) -> None:
    """A registry of the reader, in a domain for examples, and a path are not compared."""
    Path(copy, "a.md").write_text(text)
    assert places.differing(copy) == []


def test_version_and_publisher_are_rewritten_everywhere_and_back(copy: str) -> None:
    """The verbs `version` and `owner` change each place and nothing else: the way back gives the same files."""
    Path(copy, "a.md").write_text("newName: registry.example/tools/imds-detour\ngithub.com/example__owner/other\n")
    before, current, project = contents(copy), names.version(), names.publisher()
    places.set_version("9.8.7", copy)
    places.set_publisher(OTHER, copy)
    assert places.differing(copy) == []
    assert (names.version(copy), names.publisher(copy)) == ("9.8.7", OTHER)
    assert {place.value for place in places.versions(copy)} == {"9.8.7"}
    assert {place.value for place in places.owners(copy)} == {"github.com/someone-else", "quay.io/someone-else"}
    assert contents(copy)["a.md"] == before["a.md"]
    places.set_version(current, copy)
    places.set_publisher(project, copy)
    assert contents(copy) == before


def test_placeholder_can_be_no_github_account() -> None:
    """The committed owner is a name that GitHub gives to nobody, so nobody can publish images under it."""
    if names.publisher().owner == names.PLACEHOLDER:
        assert not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*(_[a-z0-9]{3,8})?", names.PLACEHOLDER)


def test_notes_are_the_section_of_the_version() -> None:
    """The text of a release is its section, without the heading and the sections around it."""
    assert changelog.notes(CHANGELOG, "1.1.0") == "### Added\n\n- A thing."


@pytest.mark.parametrize("version", ["1.0.0", "3.0.0"], ids=["empty", "missing"])
def test_version_without_text_has_no_notes(version: str) -> None:
    """An empty or missing section is an error that says what to run."""
    with pytest.raises(ReleaseError, match=f"run `scripts/release version {version}`"):
        changelog.notes(CHANGELOG, version)


def test_unreleased_section_gets_version_and_date() -> None:
    """Dating makes the unreleased section that of the version, once; a new empty one is above it."""
    text = changelog.dated(CHANGELOG, "1.2.0", "2026-03-04")
    assert changelog.notes(text, "1.2.0") == "- A change that nobody has."
    assert "## [Unreleased]\n\n## [1.2.0] - 2026-03-04\n\n- A change" in text
    assert text.replace("## [1.2.0] - 2026-03-04\n\n", "") == CHANGELOG
    with pytest.raises(ReleaseError, match=r"nothing under \[Unreleased\]"):
        changelog.dated(text, "1.3.0", "2026-03-05")
    with pytest.raises(ReleaseError, match=r"a section for 1\.1\.0 already"):
        changelog.dated(CHANGELOG, "1.1.0", "2026-03-05")


def test_projects_changelog_can_be_dated() -> None:
    """The changelog has the form that the verbs read, and dating loses no line."""
    heading = "## [Unreleased]\n"
    text = names.read(names.CHANGELOG).replace(heading, f"{heading}\n- Something new.\n", 1)
    dated = changelog.dated(text, "99.0.0", "2026-03-04")
    assert changelog.notes(dated, "99.0.0") == changelog.sections(text)["Unreleased"]
    assert sorted(set(dated.splitlines()) - set(text.splitlines())) == ["## [99.0.0] - 2026-03-04"]


def ready(root: str) -> None:
    """Make a copy of the project releasable as v2.0.0 of OTHER."""
    places.set_version("2.0.0", root)
    places.set_publisher(OTHER, root)
    Path(root, names.CHANGELOG).write_text(changelog.dated(CHANGELOG, "2.0.0", "2026-03-04"))


@pytest.mark.parametrize("repository", ["", "Someone-Else/imds-detour"])
def test_tag_of_a_ready_project_can_be_released(repository: str, copy: str) -> None:
    """A project whose tag, version, changelog and owner agree has no problem; the owner may have capitals on GitHub."""
    ready(copy)
    assert check.problems("v2.0.0", repository, copy) == []


@pytest.mark.parametrize(
    ("tag", "repository", "change", "problem"),
    [
        ("v2.0.1", "", ("a.md", ""), "the tag is v2.0.1, and src/imds_detour/__init__.py has 2.0.0"),
        ("2.0.0", "", ("a.md", ""), "the tag is 2.0.0, and"),
        ("v2.0.0", "fork/imds-detour", ("a.md", ""), "this repository is fork/imds-detour, and"),
        ("v2.0.0", "", (names.CHANGELOG, CHANGELOG), "CHANGELOG.md has no text for 2.0.0"),
        ("v2.0.0", "", ("a.md", "imds-detour:1.9.0"), "a.md:1 has 1.9.0"),
        ("v2.0.0", "", (names.PUBLISH, "REGISTRY=quay.io\nOWNER=example__owner\n"), "has the placeholder"),
    ],
)
def test_tag_with_a_problem_is_refused(
    tag: str, repository: str, change: tuple[str, str], problem: str, copy: str
) -> None:
    """Another tag, a fork, no text, a forgotten place and the placeholder are each a reason not to release."""
    ready(copy)
    Path(copy, change[0]).write_text(change[1])
    assert any(problem in line for line in check.problems(tag, repository, copy))


@pytest.mark.parametrize(
    "arguments",
    [("owner", "not_a_name"), ("owner", "x-"), ("version", "1.2"), ("version", "v1.2.3"), ("notes", "v99.0.0")],
    ids=" ".join,
)
def test_wrong_argument_is_one_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A verb with a wrong argument says so in one line, exits with 1, and changes nothing."""
    before = names.read(names.PUBLISH), names.read(names.SOURCE)
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("release: ")
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert before == (names.read(names.PUBLISH), names.read(names.SOURCE))


def test_script_runs_the_verbs() -> None:
    """scripts/release runs a verb from any folder: `check` refuses a tag that is not the version's."""
    done = subprocess.run(
        [f"{names.ROOT}/scripts/release", "check", "v99.0.0"], cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "release: the tag is v99.0.0, and src/imds_detour/__init__.py has " in done.stderr


def stages() -> dict[str, str]:
    """Return the text of each stage of docker/Dockerfile, by its name."""
    parts = re.split(r"^FROM ", names.read("docker/Dockerfile"), flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].split()[-1]: part for part in parts}


def test_published_images_have_source_version_and_revision() -> None:
    """The bundle's stage has the labels, each from an argument with the project's value; ctl and mock inherit them."""
    bundle = stages()["bundle"]
    for label, argument, value in (
        ("version", "VERSION", names.version()),
        ("revision", "REVISION", "unknown"),
        ("source", "SOURCE", names.publisher().repository),
    ):
        assert f"\nARG {argument}={value}\n" in bundle
        assert f'org.opencontainers.image.{label}="${{{argument}}}"' in bundle
    assert {target: stages()[target].split()[0] for target in names.IMAGES} == {
        "bundle": "scratch",
        "ctl": "bundle",
        "mock": "bundle",
    }


@pytest.mark.parametrize("target", names.IMAGES)
def test_image_is_pushed_for_both_architectures(target: str) -> None:
    """The command builds the target for amd64 and arm64 with its commit, and pushes it as the version and latest."""
    command = images.push_command(target, "c0ffee", "m.json")
    image = f"{names.publisher().registry}/{names.publisher().owner}/{names.IMAGES[target]}"
    given = [" ".join(pair) for pair in itertools.pairwise(command)]
    assert f"--target {target}" in given
    assert "--platform linux/amd64,linux/arm64" in given
    assert "--build-arg REVISION=c0ffee" in given
    assert [pair for pair in given if pair.startswith("--tag ")] == [
        f"--tag {image}:{names.version()}",
        f"--tag {image}:latest",
    ]
    assert {"--provenance mode=max", "--sbom true"} <= set(given)


@pytest.mark.parametrize(("status", "digest"), [("0", SHA), ("7", None)], ids=["pushed", "refused"])
def test_pushed_image_is_named_by_digest(
    status: str, digest: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`image --push` prints name and digest as a step's outputs. The control, a failed push, prints neither."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("STATUS", status)
    monkeypatch.setenv("GITHUB_SHA", "c0ffee")
    assert main(["image", "ctl", "--push"]) == int(digest is None)
    name = names.publisher().image("ctl")
    said = capsys.readouterr()
    assert said.out == (f"name={name}\ndigest={digest}\n" if digest else "")
    assert ("failed with status 7" in said.err) == (digest is None)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["inspect", "create", "build"]
    assert "REVISION=c0ffee" in calls[-1]


def built_bundle(place: Path, architecture: str, *without: str) -> str:
    """Write an archive with a launcher's first bytes and a bill of materials, and return its path."""
    machine = {name: number for number, name in files.ELF_MACHINES.items()}[architecture]
    launcher = b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little")
    with tarfile.open(place, "w:gz") as archive:
        for name, text in ((files.LAUNCHER, launcher), (files.INNER_BILL, b"{}")):
            if name not in without:
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
    return str(place)


@pytest.mark.parametrize("architecture", names.ARCHITECTURES)
def test_bundle_is_published_with_its_bill_of_materials(architecture: str, tmp_path: Path) -> None:
    """The archive is copied unchanged under its name without a version; the bill of materials in it is beside it."""
    built = built_bundle(tmp_path / "built", architecture)
    files.publish_bundle(built, architecture, str(tmp_path / "out"))
    archive = tmp_path / f"out/imds-detour-linux-{architecture}.tar.gz"
    assert archive.read_bytes() == Path(built).read_bytes()
    assert (tmp_path / f"out/imds-detour-linux-{architecture}.cdx.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("architecture", "without", "problem"),
    [
        ("arm64", files.INNER_BILL, "has no imds-detour/imds-detour.cdx.json: build it again"),
        ("arm64", files.LAUNCHER, "has no imds-detour/bin/imds-detour: build it again"),
        ("amd64", "", "are for amd64, not for arm64: build it again"),
    ],
)
def test_wrong_bundle_is_not_published(architecture: str, without: str, problem: str, tmp_path: Path) -> None:
    """An archive without a bill of materials or a program, or for another architecture, is refused."""
    built = built_bundle(tmp_path / "built", architecture, without)
    with pytest.raises(ReleaseError, match=problem):
        files.publish_bundle(built, "arm64", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", names.ARCHITECTURES)
def test_make_builds_the_archive_that_is_published(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `make` target that the verb calls for an architecture writes the archive that it publishes."""
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(files, "run", lambda *command: called.append(command))
    archive = files.bundle(architecture)
    done = subprocess.run([*called[0], "--dry-run"], cwd=names.ROOT, capture_output=True, text=True, check=True)
    script, *arguments = done.stdout.split()
    folder, meant = arguments or ("build/imds-detour", files.MACHINES[os.uname().machine])
    assert (script, meant) == ("scripts/bundle", architecture)
    assert archive == f"{names.ROOT}/{folder}.tar.gz"


def test_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    """`sha256sum --check` accepts the file, also when it is written twice. The control, a changed file, fails."""
    for name in ("b.tar.gz", "a.whl"):
        (tmp_path / name).write_text(name)
    for _ in range(2):
        assert main(["sums", str(tmp_path)]) == 0
    said = [line.split()[1] for line in (tmp_path / names.SUMS).read_text().splitlines()]
    assert said == ["a.whl", "b.tar.gz"]
    command = ["sha256sum", "--check", "--strict", "--quiet", names.SUMS]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "a.whl").write_text("changed")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


@pytest.mark.slow
def test_wheel_and_sdist_are_reproducible_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds give the same bytes, twine accepts them, and the wheel's programs run in an empty environment.

    The controls: a wheel whose programs print another version, and files that twine does not accept.
    """
    first, second = (files.packages(str(tmp_path / folder)) for folder in ("1", "2"))
    for one, two in zip(first, second, strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()
    with tarfile.open(first[1]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"scripts/release", "release/publish.env", ".github/workflows/release.yml", "CHANGELOG.md"} <= inside
    files.try_wheel(first[0], "--no-deps", "--no-index")
    monkeypatch.setattr(files, "version", lambda: "9.9.9")
    with pytest.raises(ReleaseError, match=f"imds-detour --version prints 'imds-detour {names.version()}'"):
        files.try_wheel(first[0], "--no-deps", "--no-index")
    broken = tmp_path / "broken-1.tar.gz"
    broken.write_text(json.dumps({}))
    with pytest.raises(ReleaseError, match="twine"):
        files.run(sys.executable, "-m", "twine", "check", "--strict", str(broken))
