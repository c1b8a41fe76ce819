"""Unmodified containers on a bridge, redirected by one command on their host."""

import pytest

from tests.docker.engine import TEST_SOCKET, Engine, Lan
from tests.docker.images import PREFIX, Images, fetch
from tests.support.hosts.network import ID_URL, INSTANCE


def test_stock_container_reads_the_mock_by_init_on_its_host(engine: Engine, images: Images) -> None:
    """After `init --host` a stock image on an ordinary bridge network reads a mock in a container of it."""
    if not engine.host.endswith(TEST_SOCKET):
        pytest.skip("it changes the engine's host: `make engine` starts one with a host of its own")
    lan = Lan(engine, "--driver", "bridge")
    admin = ("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", images.target("ctl"))
    try:
        mock = lan.start(images.target("mock"))
        mock.says("listening on")
        done = lan.run(*admin, "init", "--host", "--mock", f"{mock.address()}:1338", on="host")
        assert done.returncode == 0, done
        image = f"{PREFIX}/debian"
        stock = lan.run(image, *fetch(image, ID_URL))
        assert (stock.returncode, stock.stdout) == (0, INSTANCE), stock
    finally:
        removed = lan.run(*admin, "remove", on="host")
        lan.close()
    assert removed.returncode == 0
