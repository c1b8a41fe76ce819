"""Kubernetes' view of deploy/kubernetes: kubectl renders, official schemas validate, CEL is evaluated.

This is no cluster: cel-python replaces the API server's CEL, and selectors, parameters and the order of admission
plugins are not evaluated. Type names with dots are flattened for cel-python, which has no nested types.
"""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import celpy.celtypes
import jsonpatch
import kubernetes_validate
import pytest
import yaml
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from tests.support import SUPPORT
from tests.support.marks import first_quick

Manifest = dict[str, Any]

ROOT = os.path.dirname(os.path.dirname(SUPPORT))
DEPLOY = f"{ROOT}/deploy/kubernetes"
FIRST_WITH_SIDECARS = (1, 29)
"""The first version with native sidecars by default (KEP-753)."""
_OFFERED = (tuple(map(int, text.split(".")[:2])) for text in kubernetes_validate.utils.all_versions())
VERSIONS = sorted({version for version in _OFFERED if version >= FIRST_WITH_SIDECARS})
"""The versions with native sidecars and an installed official schema."""


def name_of(version: tuple[int, ...]) -> str:
    """Return a version as Kubernetes writes it."""
    return ".".join(map(str, version))


EACH_VERSION = pytest.mark.parametrize(
    "version", first_quick(pytest.param(version, id=name_of(version)) for version in reversed(VERSIONS))
)


def unpacked(program: str) -> str:
    """Return the kubectl or helm that scripts/setup unpacked, else the one on PATH; skip the module without either."""
    path = os.path.join(os.path.dirname(sys.executable), program)
    if os.path.exists(path):
        return path
    return shutil.which(program) or pytest.skip(f"no {program} is installed", allow_module_level=True)


@functools.cache
def _rendered(folder: str) -> str:
    command = [unpacked("kubectl"), "kustomize", folder]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def render(folder: str) -> list[Manifest]:
    """Return the manifests that ``kubectl apply -k`` sends for a folder of DEPLOY, an absolute path, or a URL."""
    whole = folder if "://" in folder else os.path.join(DEPLOY, folder)
    return [document for document in yaml.safe_load_all(_rendered(whole)) if document]


def render_overlay(
    folder: Path,
    bases: Iterable[str],
    files: Iterable[str] = (),
    components: Iterable[str] = (),
    **more: Any,  # noqa: ANN401  (of each field its type)
) -> list[Manifest]:
    """Return what kubectl renders from a kustomization in ``folder`` with bases and components of DEPLOY."""
    # kustomize takes no absolute paths
    resources, used = ([os.path.relpath(f"{DEPLOY}/{name}", folder) for name in names] for names in (bases, components))
    folder.mkdir(exist_ok=True)
    whole = {**more, "resources": [*resources, *files], "components": used}
    (folder / "kustomization.yaml").write_text(json.dumps(whole))
    return render(str(folder))


def find_manifest(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the manifest of this kind and name."""
    (only,) = [manifest for manifest in manifests if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)]
    return only


def complaints(manifest: Manifest, version: tuple[int, ...]) -> str:
    """Return a version's schema's objections, also to unknown fields (``kubectl apply --validate=strict``), or ""."""
    return _complaints(json.dumps(manifest), name_of(version))


@functools.cache  # each look reads megabytes of schema
def _complaints(manifest: str, version: str) -> str:
    try:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{list(error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    return ""


def pod_of(workload: Manifest) -> Manifest:
    """Return the pod of a workload's template, or of a CronJob's."""
    spec = workload["spec"]
    template = copy.deepcopy(spec.get("jobTemplate", workload)["spec"]["template"])
    metadata = {"generateName": "app-", "namespace": "ns", **template.get("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def settings_of(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """Return the variables of a container that have a value, with those of its ConfigMaps in these manifests."""
    existing = {item["metadata"]["name"]: item.get("data", {}) for item in manifests if item["kind"] == "ConfigMap"}
    wanted = [source["configMapRef"] for source in container.get("envFrom", ())]
    maps = [existing[item["name"]] for item in wanted if item["name"] in existing or not item.get("optional")]
    own = {item["name"]: item["value"] for item in container.get("env", ()) if "value" in item}
    return {name: value for data in (*maps, own) for name, value in data.items()}


def with_settings(workload: Manifest, manifests: list[Manifest]) -> Manifest:
    """Return the spec of a workload's pod, in which each container has its ConfigMaps' values as its own variables."""
    spec: Manifest = pod_of(workload)["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        fields = [item for item in container.get("env", ()) if "value" not in item]
        values = settings_of(container, manifests)
        container["env"] = [*fields, *({"name": name, "value": value} for name, value in values.items())]
        container.pop("envFrom", None)
    return spec


PLAIN: dict[type, type] = {
    celpy.celtypes.BoolType: bool,
    celpy.celtypes.IntType: int,
    celpy.celtypes.StringType: str,
    str: str,  # as celpy joins strings
}
"""The types of the values that the policies' expressions return."""


class _Message(celpy.celtypes.MessageType):
    """An object of a mutation, with any fields: the API server too checks them later."""


class Policy:
    """A MutatingAdmissionPolicy with its parameters, evaluated like the API server does."""

    def __init__(self, manifest: Manifest, params: Manifest) -> None:
        """Take a policy and the ConfigMap of its binding."""
        self._spec = manifest["spec"]
        self._params = params

    def mutate(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Return the pod after the policy, unchanged if a match condition is false.

        Raises:
            CELEvalError: when an expression fails; with ``failurePolicy: Fail`` the pod is then refused.

        """
        known = {"object": pod, "namespaceObject": namespace, "params": self._params}
        if not all(_evaluate(item["expression"], known) for item in self._spec.get("matchConditions", [])):
            return pod
        known = _with_variables(self._spec, known)
        for mutation in self._spec["mutations"]:
            assert mutation["patchType"] == "JSONPatch"
            patch = _evaluate(mutation["jsonPatch"]["expression"], known)
            known["object"] = jsonpatch.apply_patch(known["object"], patch)
        return known["object"]


def refusals(manifest: Manifest, created: Manifest, namespace: Manifest | None) -> list[str]:
    """Return the messages with which a ValidatingAdmissionPolicy refuses an object; None is no namespace.

    Raises:
        CELEvalError: when an expression fails; with ``failurePolicy: Fail`` the object is then refused.

    """
    known = _with_variables(manifest["spec"], {"object": created, "namespaceObject": namespace})
    return [
        item["message"] if "message" in item else _evaluate(item["messageExpression"], known)
        for item in manifest["spec"]["validations"]
        if not _evaluate(item["expression"], known)
    ]


def _with_variables(spec: Manifest, known: dict[str, Any]) -> dict[str, Any]:
    """Return what is known and the values of the policy's variables, which can use earlier ones."""
    variables: dict[str, Any] = {}
    for item in spec.get("variables", ()):
        variables[item["name"]] = _evaluate(item["expression"], {**known, "variables": variables})
    return {**known, "variables": variables}


def _evaluate(expression: str, known: dict[str, Any]) -> Any:  # noqa: ANN401  (the expression's type)
    flat = re.sub(r"\bObject(?:\.\w+)*(?=\{)", lambda name: name[0].replace(".", "_"), expression)
    types = dict.fromkeys(re.findall(r"\b((?:Object|JSONPatch)\w*)\{", flat), _Message)
    environment = celpy.Environment(annotations=types)  # type: ignore[arg-type]  # its annotation forgets MessageType
    program = environment.program(environment.compile(flat))
    return _plain(program.evaluate({name: json_to_cel(value) for name, value in known.items()}))


def _plain(value: Any) -> Any:  # noqa: ANN401  (any CEL value, as JSON has it)
    if isinstance(value, CELEvalError):
        raise value
    if isinstance(value, dict):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_plain(held) for held in value]
    return PLAIN[type(value)](value)
