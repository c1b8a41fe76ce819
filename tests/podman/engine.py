"""Podman by its command line, rootful and rootless, in namespaces of its own."""

import os
import subprocess
import time
from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UID = 61000
"""The user of rootless Podman. Debian gives no package this number (Debian Policy 9.2.2: 60000 to 64999 on request)."""
TIMEOUT = 60
"""Seconds after which a command counts as hung."""
OPTIONS = ("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc", "--log-level", "error")
"""There is no systemd here, and crun refuses the hybrid control groups that some machines have."""
ID_URL = "http://169.254.169.254/latest/meta-data/instance-id"


class Namespaces:
    """Network, mount and PID namespaces without a way out, which end with their first process."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self._process = process
        self.pid = pid

    def close(self) -> None:
        """End all processes in them."""
        self._process.kill()
        self._process.communicate()


def start_namespaces() -> Namespaces:
    """Make the namespaces, as root."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    script = f"{ROOT}/tests/podman/engine.sh"
    process = subprocess.Popen([*command, script, str(UID)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        return Namespaces(process, int(children.read()))


class Podman:
    """Podman as root or as the user UID."""

    def __init__(self, namespaces: Namespaces, folder: str, *, rootless: bool) -> None:
        self.rootless = rootless
        self.folder = folder
        user = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", "--") if rootless else ()
        environ = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{folder}/home",
            **({"XDG_RUNTIME_DIR": f"/run/user/{UID}"} if rootless else {}),
        }
        self._command = [
            *("nsenter", f"--target={namespaces.pid}", "--net", "--mount", "--pid", "--", *user),
            *("env", "-i", *(f"{name}={value}" for name, value in environ.items()), "podman", *OPTIONS),
            *(() if rootless else ("--root", f"{folder}/storage", "--runroot", "/run/podman-test")),
        ]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the podman command, and raise its error message if it fails, unless ``check`` is false."""
        done = subprocess.run(
            [*self._command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
        return done

    def asks(self, container: str) -> str:
        """Return the answer to a container at the metadata address, or an empty string."""
        return self.run("exec", container, "/bin/get", ID_URL, check=False).stdout

    def says(self, container: str, text: str, times: int = 1) -> str:
        """Wait until the logs of a container have a text so many times, and return its last line."""

        def lines() -> list[str]:
            logs = self.run("logs", container, check=False)
            return [line for line in (logs.stdout + logs.stderr).splitlines() if text in line]

        assert eventually(lambda: len(lines()) >= times), self.run("logs", container).stderr
        return lines()[-1]


def eventually(holds: Callable[[], bool]) -> bool:
    """Wait until the condition holds, and return whether it did in time."""
    end = time.monotonic() + TIMEOUT
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return held
