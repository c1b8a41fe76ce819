"""compose.volume.yaml: an unmodified image that starts imds-detour from a volume."""

from tests.docker.conftest import Composer
from tests.docker.engine import Project
from tests.docker.images import PREFIX, Images, fetch
from tests.support.hosts.network import ID_URL, INSTANCE

APP = f"{PREFIX}/debian"
GET = fetch(APP, ID_URL)
FOLDER = "/opt/imds-detour"
VERSION = f"{FOLDER}/bin/imds-detour", "--version"


def with_volume(composer: Composer, images: Images, filler: dict[str, list[str]] | None = None) -> Project:
    """Create the project with the development mock, plain Debian as the app, and changes to the service imds-detour."""
    services = {"imds-detour": filler or {}}
    return composer.project(
        "docker/compose.volume.yaml",
        {"services": services, "networks": {"default": {"internal": True}}},
        MOCK_IMAGE=images.target("mock"),
        IMDS_DETOUR_IMAGE=images.target("bundle"),
        APP_IMAGE=APP,
    )


def make_old(project: Project) -> None:
    """Change the program in the volume, as another version's would be."""
    program = f"{FOLDER}/bin/imds-detour"
    script = f"printf '#!/bin/sh\\necho an older version\\n' >{program}"
    project.engine.run(
        "run", "--rm", "--pull", "never", "--network", "none", "--volume", f"{project.name}_imds-detour:{FOLDER}",
        APP, "sh", "-c", script,
    )  # fmt: skip


def test_unmodified_image_starts_from_the_volume(composer: Composer, images: Images) -> None:
    """The app starts after the copy, verified; its image is unmodified, and it cannot write to the volume."""
    project = with_volume(composer, images)
    project.run("up", "--detach")
    app = project.container("app")
    assert f"verified IMDSv2 {INSTANCE}" in app.says("; exec sleep")
    assert (app.run(*GET).stdout, app.processes()) == (INSTANCE, ["sleep 3600"])
    filler = project.container("imds-detour")
    assert filler.inspect(".State.ExitCode") == 0
    assert filler.logs().startswith("/volume: ")
    assert "files written" in filler.logs()
    assert app.run("touch", f"{FOLDER}/new", check=False).returncode
    assert not int(app.reads("/proc/1/status").split("CapEff:")[1].split()[0], 16) >> 12 & 1


def test_new_image_replaces_an_old_volume(composer: Composer, images: Images) -> None:
    """An older copy in the volume is replaced by the next `up`, from which a restarted app starts."""
    project = with_volume(composer, images)
    project.run("up", "--detach")
    app = project.container("app")
    app.says("; exec sleep")
    current = app.run(*VERSION).stdout
    make_old(project)
    assert app.run(*VERSION).stdout == "an older version\n"  # control
    project.run("up", "--detach", "imds-detour")
    assert project.container("imds-detour").wait() == 0
    assert app.run(*VERSION).stdout == current
    project.run("restart", "--timeout", "0", "app")
    app.says("; exec sleep", times=2)
    assert app.run(*GET).stdout == INSTANCE


def test_volume_over_the_images_folder_keeps_an_old_copy(composer: Composer, images: Images) -> None:
    """Negative control: mounted over the image's own folder, an old volume hides a new image; `copy` says so."""
    over = {"volumes": [f"imds-detour:{FOLDER}"], "entrypoint": list(VERSION)}
    project = with_volume(composer, images, over)
    project.run("run", "--rm", "imds-detour")
    make_old(project)
    app = ("--entrypoint", VERSION[0], "app", VERSION[1])
    assert project.run("run", "--rm", "--no-deps", *app).stdout == "an older version\n"
    ctl = ("--entrypoint", f"{FOLDER}/bin/imds-detourctl", "imds-detour", "copy", FOLDER)
    done = project.run("run", "--rm", *ctl, check=False)
    assert done.returncode
    assert "the image's own folder, or a volume that hides it" in done.stdout + done.stderr


def test_app_waits_for_a_copy_that_succeeds(composer: Composer, images: Images) -> None:
    """If the copy fails, as on a read-only root, the app does not start, and a line says what to mount."""
    elsewhere = {"entrypoint": [f"{FOLDER}/bin/imds-detourctl", "copy", "/elsewhere"]}
    project = with_volume(composer, images, elsewhere)
    assert project.run("up", "--detach", check=False).returncode
    assert "cannot write to /elsewhere: read-only file system" in project.container("imds-detour").logs()
    assert [app.inspect(".State.Status") for app in project.containers("app")] in (["created"], [])
