"""A container's life: stops, restarts, networks that come and go, mocks that move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docker.conftest import MOCK
from tests.docker.engine import Lan
from tests.docker.images import fetch, nothing
from tests.support.hosts.network import ID_URL, INSTANCE

if TYPE_CHECKING:
    from tests.docker.conftest import Scene

GET = fetch("busybox", ID_URL)


def test_a_stop_while_waiting_ends_it_at_once(scene: Scene) -> None:
    """Within half a second and with 143, not after the ten seconds of grace with 137; PID 1 has no default actions."""
    seconds: list[float] = []
    while len(seconds) < 3 and not any(each < 0.5 for each in seconds):  # a busy machine may miss it once
        waiting = scene.lan.start(
            *("--env", "MOCK_HOSTNAME=nobody", "--env", "MOCK_TIMEOUT=0", "--cap-add", "NET_ADMIN"),
            *(scene.images.app("busybox"), "sleep", "3600"),
        )
        waiting.says("waiting")
        seconds.append(waiting.seconds_to_stop())
        assert waiting.inspect(".State.ExitCode") == 143
        assert "exec" not in waiting.logs()
    assert min(seconds) < 0.5, seconds


def test_a_stop_afterwards_is_the_apps(scene: Scene) -> None:
    """The app gets the signal itself, and its status is its own."""
    app = scene.lan.start(
        *scene.options(scene.images.app("busybox")),
        "sh",
        "-c",
        "trap 'echo stopped; exit 3' TERM; while sleep 1; do :; done",
    )
    app.says("; exec sh")
    scene.lan.engine.run("stop", app.name)
    assert app.inspect(".State.ExitCode") == 3
    assert "stopped" in app.logs()


def test_a_restart_begins_anew(scene: Scene) -> None:
    """The same container, started again, waits, redirects and proves again."""
    app = scene.app()
    scene.lan.engine.run("restart", "--time", "0", app.name)
    app.says("; exec sleep", times=2)
    assert app.run(*GET).stdout == INSTANCE
    assert app.processes() == ["sleep 3600"]


def test_a_pause_does_no_harm(scene: Scene) -> None:
    """Frozen and thawed, it finds everything where it was."""
    app = scene.app()
    scene.lan.engine.run("pause", app.name)
    scene.lan.engine.run("unpause", app.name)
    assert app.run(*GET).stdout == INSTANCE


def test_a_network_that_goes_and_comes_back(scene: Scene) -> None:
    """The rules are the namespace's, not the network's, and stand. The route was the network's where it gave one.

    From engine 25 on a closed network gives none, and ours went with the address that it was for: then the app reaches
    nobody, rather than anybody else, until it is restarted.
    """
    app = scene.app()
    network = scene.lan.name
    scene.lan.engine.run("network", "disconnect", network, app.name)
    assert app.run(*GET, check=False).returncode != 0
    scene.lan.engine.run("network", "connect", network, app.name)
    if scene.lan.engine.version() >= (25, 0):
        assert "unreachable" in app.run(*GET, check=False).stderr
        scene.lan.engine.run("restart", "--time", "0", app.name)
        app.says("; exec sleep", times=2)
    assert app.run(*GET).stdout == INSTANCE


def test_the_mock_on_the_second_of_two_networks(scene: Scene) -> None:
    """The default route leads elsewhere, if anywhere: the mock is found and reached all the same."""
    first = Lan(scene.lan.engine)
    try:
        image = scene.images.app("busybox")
        app = first.create(*scene.options(image), *nothing(image))
        scene.lan.engine.run("network", "connect", scene.lan.name, app.name)
        scene.lan.engine.run("start", app.name)
        app.says("; exec sleep")
        assert app.run(*GET).stdout == INSTANCE
    finally:
        first.close()


def test_a_container_that_shares_our_namespace(scene: Scene) -> None:
    """`--network container:...`: an unmodified image finds the mock, too."""
    app = scene.app()
    done = scene.lan.run("imds-detour-test/busybox", *GET, on=f"container:{app.name}")
    assert done.stdout == INSTANCE, done.stderr


def test_a_mock_recreated_at_another_address_is_not_followed(lan: Lan, scene: Scene) -> None:
    """The entrypoint is gone by then. The app reaches nobody, and a restart finds the new address."""
    engine, images = lan.engine, scene.images
    mock = lan.start("--network-alias", MOCK, images.target("mock"))
    image = images.app("busybox")
    app = lan.start(*scene.options(image), *nothing(image))
    app.says("; exec ")
    assert app.run(*GET).stdout == INSTANCE
    before = mock.address()
    lan.remove(mock)
    lan.start("imds-detour-test/busybox", "sleep", "3600")  # takes the old address
    moved = lan.start("--network-alias", MOCK, images.target("mock"))
    moved.says("listening on")
    assert moved.address() != before
    assert app.run(*GET, check=False).returncode != 0
    engine.run("restart", "--time", "0", app.name)
    app.says("; exec sleep", times=2)
    assert app.run(*GET).stdout == INSTANCE


def test_many_at_once(scene: Scene) -> None:
    """Eight apps that start together all find the mock."""
    image = scene.images.app("busybox")
    apps = [scene.lan.start(*scene.options(image), *nothing(image)) for _ in range(8)]
    for app in apps:
        app.says("; exec sleep")
        assert app.run(*GET).stdout == INSTANCE
