"""A Docker engine, by its command line."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = os.getenv("ENGINE_HOME") or f"{ROOT}/.cache/engine"
"""The folder of the engine that `make engine` starts (scripts/engine)."""
TEST_SOCKET = f"{HOME}/docker.sock"
LABEL = f"imds-detour-test={os.getpid()}"
"""The label of all containers and networks of this run."""
TIMEOUT = 60
"""Seconds after which a container counts as hung."""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Engine:
    """A reachable engine; ``host`` is the value of DOCKER_HOST, or empty for the command's default."""

    host: str

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a client of this engine."""
        base = {name: value for name, value in os.environ.items() if not name.startswith(("MOCK_", "COMPOSE_"))}
        return {**base, **({"DOCKER_HOST": self.host} if self.host else {}), **(more or {})}

    def run(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker command, and raise its error message if it fails, unless ``check`` is false."""
        return _run(("docker", *arguments), self.environ(), check=check, stdin=stdin, timeout=timeout)

    def says(self, *arguments: str) -> str:
        """Return the output of the docker command."""
        return self.run(*arguments).stdout.strip()

    def version(self) -> tuple[int, ...]:
        """Return the engine's version, such as (20, 10)."""
        major, minor, *_ = self.says("version", "--format", "{{.Server.Version}}").split(".")
        return int(major), int(minor)


def find() -> Engine | None:
    """Return the engine of DOCKER_HOST, else that of `make engine`, else the machine's; None if there is none."""
    if not shutil.which("docker"):
        return None
    host = os.getenv("DOCKER_HOST") or (f"unix://{TEST_SOCKET}" if os.path.exists(TEST_SOCKET) else "")
    engine = Engine(host)
    return engine if engine.run("version", check=False).returncode == 0 else None


class Container:
    """A container, removed with its network."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, with the container's capabilities and not the app's."""
        return self.engine.run("exec", self.name, *command, check=check)

    def reads(self, path: str) -> str:
        """Return a file's content in the container."""
        return self.engine.says("exec", self.name, *("cat", path))

    def logs(self) -> str:
        """Return stdout and stderr of all starts so far."""
        done = self.engine.run("logs", self.name)
        return done.stdout + done.stderr

    def says(self, text: str, times: int = 1) -> str:
        """Wait until the logs have a text so many times, and return its last line."""
        for _ in _rounds():
            lines = [line for line in self.logs().splitlines() if text in line]
            if len(lines) >= times:
                return lines[-1]
        raise AssertionError(f"{self.name} never said {text!r}:\n{self.logs()}")

    def inspect(self, template: str) -> Any:  # noqa: ANN401  (whatever the engine knows)
        """Return a property of the container, selected by a template without braces."""
        return json.loads(self.engine.says("inspect", "--format", f"{{{{json {template}}}}}", self.name))

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        return int(self.engine.says("wait", self.name))

    def address(self) -> str:
        """Return the address on the only network."""
        (network,) = self.inspect(".NetworkSettings.Networks").values()
        return str(network["IPAddress"])

    def processes(self) -> list[str]:
        """Return the command of each process in the container."""
        listed = self.engine.says("top", self.name, "-o", "pid,args").splitlines()[1:]
        return [line.split(maxsplit=1)[1] for line in listed]

    def seconds_to_stop(self) -> float:
        """Stop it as `docker stop` does, and return the time from the signal to its end, by the engine's own clock."""
        self.engine.run("stop", self.name)
        ended = self.inspect(".State.FinishedAt")
        for _ in _rounds():  # events are handed on by a process of their own
            if events := self._events("kill"):
                break
        signalled = json.loads(events[-1])["timeNano"] / 1e9
        return float(datetime.fromisoformat(ended).timestamp() - signalled)

    def _events(self, kind: str) -> list[str]:
        return self.engine.says(
            "events", "--since", "5m", "--until", "0s", "--format", "{{json .}}",
            "--filter", f"container={self.name}", "--filter", f"event={kind}",
        ).splitlines()  # fmt: skip


class Lan:
    """A network and its containers, removed together. It is closed unless a test opens it."""

    def __init__(self, engine: Engine, *options: str) -> None:
        self.engine = engine
        self.name = f"imds-detour-test-{os.getpid()}-{next(_numbers)}"
        engine.run("network", "create", *(options or ("--internal",)), "--label", LABEL, self.name)
        self._containers: list[str] = []

    def start(self, *arguments: str, on: str | None = None) -> Container:
        """Start a container in the background: options of docker run, image, command."""
        made = self._named()
        self.engine.run("run", "--detach", *self._options(made, on), *arguments)
        return made

    def create(self, *arguments: str, on: str | None = None) -> Container:
        """Create a container without starting it."""
        made = self._named()
        self.engine.run("create", *self._options(made, on), *arguments)
        return made

    def run(self, *arguments: str, stdin: str | None = None, on: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, and return its result."""
        return self.engine.run("run", *self._options(self._named(), on), *arguments, check=False, stdin=stdin)

    def command(self, *arguments: str) -> list[str]:
        """Return the docker run command, for a test that starts it itself."""
        return ["docker", "run", *self._options(self._named(), None), *arguments]

    def remove(self, container: Container) -> None:
        """Remove a container now."""
        self.engine.run("rm", "--force", "--volumes", container.name)
        self._containers.remove(container.name)

    def close(self) -> None:
        """Remove everything."""
        if self._containers:
            self.engine.run("rm", "--force", "--volumes", *self._containers)
        self.engine.run("network", "rm", self.name)

    def _named(self) -> Container:
        self._containers.append(f"{self.name}-{next(_numbers)}")
        return Container(self.engine, self._containers[-1])

    def _options(self, made: Container, on: str | None) -> tuple[str, ...]:
        return "--pull", "never", "--name", made.name, "--label", LABEL, "--network", on or self.name


class Project:
    """A Compose project, removed by close()."""

    def __init__(self, tool: tuple[str, ...], engine: Engine, files: tuple[str, ...], environ: dict[str, str]) -> None:
        self.engine = engine
        self.name = f"imds-detour-test-{os.getpid()}-{next(_numbers)}"
        self._command = (*tool, "--project-name", self.name, *(part for file in files for part in ("--file", file)))
        self._environ = engine.environ(environ)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the Compose command on this project."""
        return _run((*self._command, *arguments), self._environ, check=check, timeout=2 * TIMEOUT)

    def containers(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        names = self.engine.says(
            "ps", "--all", "--format", "{{.Names}}",
            "--filter", f"label=com.docker.compose.project={self.name}",
            "--filter", f"label=com.docker.compose.service={service}",
        )  # fmt: skip
        return [Container(self.engine, name) for name in sorted(names.splitlines())]

    def container(self, service: str) -> Container:
        """Return the only container of a service."""
        (only,) = self.containers(service)
        return only

    def eventually(self, holds: Callable[[], bool]) -> bool:
        """Wait until the condition holds, and return whether it did in time."""
        return any(holds() for _ in _rounds())

    def close(self) -> None:
        """Take it down: containers, networks, volumes."""
        self.run("down", "--timeout", "0", "--volumes", "--remove-orphans")


def _rounds() -> Iterator[None]:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        yield
        time.sleep(0.1)


def _run(
    command: tuple[str, ...], environ: dict[str, str], *, check: bool, timeout: float, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=environ, cwd=ROOT, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


if __name__ == "__main__":
    sys.exit(find() is None)
