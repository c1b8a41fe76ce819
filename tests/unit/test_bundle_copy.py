"""Copying the bundle into a volume."""

import os
import shutil
from pathlib import Path

import pytest

from imds_detour.errors import DetourError
from imds_detour.system import bundle_copy
from imds_detour.system.bundle_copy import PROGRAM, copy


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a folder with a program, data and a link, as a bundle has them."""
    made = tmp_path / "bundle"
    for place, text in ((PROGRAM, "program"), ("lib/data", "data"), ("xtables/first", "extension")):
        (made / place).parent.mkdir(parents=True, exist_ok=True)
        (made / place).write_text(text)
    (made / PROGRAM).chmod(0o755)
    (made / "xtables/second").symlink_to("first")
    return made


def content(folder: Path) -> dict[str, tuple[int, str]]:
    """Return mode and text of each file."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.read_text(),
        )
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def test_copy_equals_the_bundle_and_a_second_one_writes_nothing(bundle: Path, tmp_path: Path) -> None:
    """Files, modes and links are the same; a second copy writes no file. Control: a changed file is written again."""
    volume = tmp_path / "volume"
    assert copy(str(bundle), str(volume)) == 4
    assert content(volume) == content(bundle)
    assert copy(str(bundle), str(volume)) == 0
    (bundle / "lib/data").write_text("new")
    (bundle / PROGRAM).chmod(0o700)
    assert copy(str(bundle), str(volume)) == 2
    assert content(volume) == content(bundle)


def test_running_program_keeps_its_file(bundle: Path, tmp_path: Path) -> None:
    """A file that a program has open is replaced, not written to."""
    copy(str(bundle), str(tmp_path / "volume"))
    with open(tmp_path / "volume/lib/data") as running:
        (bundle / "lib/data").write_text("new")
        copy(str(bundle), str(tmp_path / "volume"))
        assert running.read() == "data"


def test_program_is_copied_last(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that ends early has no program that an app could start, and leaves no temporary file."""
    places, replace = list[str](), os.replace

    def fail_at_last(new: str, place: str) -> None:
        places.append(place)
        if len(places) == 4:
            raise OSError(28, "No space left on device")
        replace(new, place)

    monkeypatch.setattr(os, "replace", fail_at_last)
    with pytest.raises(DetourError, match="no space left on device"):
        copy(str(bundle), str(tmp_path / "volume"))
    assert sorted(content(tmp_path / "volume")) == ["lib/data", "xtables/first", "xtables/second"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("bundle", "the image's own folder"),
        ("bundle/../bundle/", "the image's own folder"),
        ("foreign", "has other files than imds-detour's"),
        ("foreign/file", "cannot write to .*: (not a directory|file exists)"),
    ],
)
def test_wrong_folder_is_refused_unchanged(bundle: Path, tmp_path: Path, target: str, reason: str) -> None:
    """The bundle's own folder, a folder of something else and a file are refused, and stay as they are."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    with pytest.raises(DetourError, match=reason):
        copy(str(bundle), str(tmp_path / target))
    assert sorted(os.listdir(tmp_path / "foreign")) == ["file"]
    shutil.rmtree(tmp_path / "foreign")
    assert len(content(bundle)) == 4


def test_pip_installation_is_no_bundle() -> None:
    """An installation by pip has no folder that runs elsewhere, and says so."""
    with pytest.raises(DetourError, match="not the bundle"):
        bundle_copy.bundle_folder()
