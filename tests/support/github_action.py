"""The step of action.yml as a runner runs it."""

import os
import re

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def step(path: str, temp: str, container: str = "", **inputs: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables of the action's only step.

    ``path`` is the folder of the action and ``temp`` the runner's temporary folder, where the job runs; ``container``
    is the id of the job's container. Runners execute `shell: sh` as `sh -e FILE`.
    """
    with open(f"{ROOT}/action.yml") as file:
        action = yaml.safe_load(file)
    (only,) = action["runs"]["steps"]
    given = {name: str(described["default"]) for name, described in action["inputs"].items()} | inputs
    assert (set(given), only["shell"]) == (set(action["inputs"]), "sh")
    known = {f"inputs.{name}": value for name, value in given.items()} | {"job.container.id": container}
    expression = re.compile(r"\$\{\{ (\S+) \}\}")
    variables = {name: expression.sub(lambda found: known[found[1]], value) for name, value in only["env"].items()}
    files = {name: f"{temp}/{name.lower()}" for name in ("GITHUB_PATH", "GITHUB_OUTPUT")}
    return ["sh", "-e", "-c", only["run"]], {"GITHUB_ACTION_PATH": path, "RUNNER_TEMP": temp, **files, **variables}
