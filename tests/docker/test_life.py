"""A container's life: stops, restarts, changed networks, moved mocks."""

from tests.docker.conftest import MOCK, Scene
from tests.docker.engine import Lan
from tests.docker.images import fetch, nothing
from tests.support.hosts.network import ID_URL, INSTANCE

GET = fetch("busybox", ID_URL)


def test_stop_while_waiting_ends_at_once(scene: Scene) -> None:
    """`docker stop` during the wait ends within half a second with status 143, also as PID 1."""
    seconds, image = list[float](), scene.images.app("busybox")
    while len(seconds) < 3 and not any(value < 0.5 for value in seconds):  # a busy machine may miss it once
        waiting = scene.lan.start(
            *scene.options(image, "--env", "MOCK_HOSTNAME=no-such-host", "--env", "MOCK_TIMEOUT=0"), *nothing(image)
        )
        waiting.says("waiting")
        seconds.append(waiting.seconds_to_stop())
        assert waiting.inspect(".State.ExitCode") == 143
        assert "exec" not in waiting.logs()
    assert min(seconds) < 0.5, seconds


def test_stop_signal_reaches_the_app(scene: Scene) -> None:
    """After the start `docker stop` signals the app, whose exit status is the container's."""
    script = "trap 'echo stopped; exit 3' TERM; while sleep 1; do :; done"
    app = scene.lan.start(*scene.options(scene.images.app("busybox")), "sh", "-c", script)
    app.says("; exec sh")
    scene.lan.engine.run("stop", app.name)
    assert app.inspect(".State.ExitCode") == 3
    assert "stopped" in app.logs()


def test_pause_keeps_the_redirect_and_restart_runs_the_start_again(scene: Scene) -> None:
    """The redirect works after `docker pause` and `unpause`. A restarted container redirects and verifies again."""
    app = scene.app()
    for verb in ("pause", "unpause"):
        scene.lan.engine.run(verb, app.name)
    assert app.run(*GET).stdout == INSTANCE
    scene.lan.engine.run("restart", "--time", "0", app.name)
    app.says("; exec sleep", times=2)
    assert (app.run(*GET).stdout, app.processes()) == (INSTANCE, ["sleep 3600"])


def test_rules_survive_a_network_disconnect(scene: Scene) -> None:
    """The rules survive a disconnected and connected network.

    From engine 25 on a closed network gives no default route, and imds-detour's own is lost with the address. The app
    then reaches no service until `docker exec app imds-detourctl init`, or a restart.
    """
    app = scene.app()
    network = scene.lan.name
    scene.lan.engine.run("network", "disconnect", network, app.name)
    assert app.run(*GET, check=False).returncode != 0
    scene.lan.engine.run("network", "connect", network, app.name)
    if scene.lan.engine.version() >= (25, 0):
        assert "unreachable" in app.run(*GET, check=False).stderr
        app.run("/opt/imds-detour/bin/imds-detourctl", "init")  # repairs it without a restart
        assert app.run(*GET).stdout == INSTANCE
        scene.lan.engine.run("restart", "--time", "0", app.name)
        app.says("; exec sleep", times=2)
    assert app.run(*GET).stdout == INSTANCE
    app.run("/opt/imds-detour/bin/imds-detourctl", "init")
    assert app.run(*GET).stdout == INSTANCE


def test_mock_on_a_second_network_is_reached(scene: Scene) -> None:
    """A mock on the container's second network is found and reached, without the default route."""
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


def test_container_in_the_apps_namespace_reads_the_mock(scene: Scene) -> None:
    """An unmodified image with `--network container:...` reads the mock."""
    app = scene.app()
    done = scene.lan.run("imds-detour-test/busybox", *GET, on=f"container:{app.name}")
    assert done.stdout == INSTANCE, done.stderr


def test_moved_mock_is_found_after_a_restart(lan: Lan, scene: Scene) -> None:
    """If the mock moves, the app reaches no service. A restart finds the new address."""
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


def test_eight_apps_start_together(scene: Scene) -> None:
    """Eight apps that start together all find the mock."""
    image = scene.images.app("busybox")
    apps = [scene.lan.start(*scene.options(image), *nothing(image)) for _ in range(8)]
    for app in apps:
        app.says("; exec sleep")
        assert app.run(*GET).stdout == INSTANCE
