"""What Kubernetes would make of deploy/kubernetes: kubectl renders, official schemas judge, CEL runs.

Not a cluster: the CEL here is cel-python, not the API server's, and selectors, parameters and the order of admission
plugins are not acted out. Type names with dots are flattened for cel-python, which cannot hold types within types.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
from typing import Any

import celpy.celtypes
import jsonpatch
import kubernetes_validate
import yaml
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from tests.support import SUPPORT

Manifest = dict[str, Any]

ROOT = os.path.dirname(os.path.dirname(SUPPORT))
DEPLOY = f"{ROOT}/deploy/kubernetes"
FIRST_WITH_SIDECARS = (1, 29)
"""Native sidecars are on by default from here on (KEP-753)."""
VERSIONS = sorted(
    {
        version
        for text in kubernetes_validate.utils.all_versions()
        if (version := tuple(map(int, text.split(".")[:2]))) >= FIRST_WITH_SIDECARS
    }
)
"""Those with native sidecars whose official schemas are installed."""


def name_of(version: tuple[int, ...]) -> str:
    """Return a version as Kubernetes writes it."""
    return ".".join(map(str, version))


def kubectl() -> str:
    """Return the kubectl that scripts/setup unpacked, or the one on PATH."""
    unpacked = os.path.join(os.path.dirname(sys.executable), "kubectl")
    return unpacked if os.path.exists(unpacked) else "kubectl"


@functools.cache
def _rendered(folder: str) -> str:
    command = [kubectl(), "kustomize", folder]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def render(folder: str) -> list[Manifest]:
    """Return what ``kubectl apply -k`` would send for a folder of DEPLOY, or for one at an absolute path."""
    return [document for document in yaml.safe_load_all(_rendered(os.path.join(DEPLOY, folder))) if document]


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the manifest of that kind and name."""
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def complaints(manifest: Manifest, version: tuple[int, ...]) -> str:
    """Return what the official schema of a Kubernetes version has against a manifest; empty when it has nothing.

    Strict: a field that the schema does not know is a fault, as with ``kubectl apply --validate=strict``.
    """
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
    """Return the pod that a workload's template makes."""
    template = copy.deepcopy(workload["spec"]["template"])
    metadata = {"generateName": "app-", "namespace": "ns", **template.get("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


class _Message(celpy.celtypes.MessageType):
    """An object of the mutation's: whatever fields it is given. The API server too checks them only afterwards."""


class Policy:
    """A MutatingAdmissionPolicy with its parameters, evaluated as the API server would."""

    def __init__(self, manifest: Manifest, params: Manifest) -> None:
        """Take a policy and the ConfigMap that its binding names."""
        self._spec = manifest["spec"]
        self._params = params

    def mutate(self, pod: Manifest, namespace: Manifest) -> Manifest:
        """Return the pod as it is after the policy; the same when a match condition is false.

        Raises:
            CELEvalError: when an expression fails; with ``failurePolicy: Fail`` the pod is then not created.

        """
        known = {"object": pod, "namespaceObject": namespace, "params": self._params}
        if not all(_evaluate(each["expression"], known) for each in self._spec.get("matchConditions", [])):
            return pod
        known["variables"] = {each["name"]: _evaluate(each["expression"], known) for each in self._spec["variables"]}
        for mutation in self._spec["mutations"]:
            assert mutation["patchType"] == "JSONPatch"
            patch = _evaluate(mutation["jsonPatch"]["expression"], known)
            known["object"] = jsonpatch.apply_patch(known["object"], patch)
        return known["object"]


def _evaluate(expression: str, known: dict[str, Any]) -> Any:  # noqa: ANN401  (whatever the expression makes)
    flat = re.sub(r"\bObject(?:\.\w+)*(?=\{)", lambda name: name[0].replace(".", "_"), expression)
    types = dict.fromkeys(re.findall(r"\b((?:Object|JSONPatch)\w*)\{", flat), _Message)
    environment = celpy.Environment(annotations=types)  # type: ignore[arg-type]  # its annotation forgets MessageType
    program = environment.program(environment.compile(flat))
    return _plain(program.evaluate({name: json_to_cel(value) for name, value in known.items()}))


def _plain(value: Any) -> Any:  # noqa: ANN401  (any CEL value, as JSON has it)
    match value:
        case CELEvalError():
            raise value
        case dict():
            return {str(key): _plain(held) for key, held in value.items()}
        case list():
            return [_plain(held) for held in value]
        case celpy.celtypes.BoolType():
            return bool(value)
        case celpy.celtypes.IntType():
            return int(value)
        case celpy.celtypes.StringType():
            return str(value)
        case _:
            raise TypeError(f"{type(value)} is not among the values that our expressions make")
