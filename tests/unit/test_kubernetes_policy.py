"""The admission policy's expressions, evaluated against pods: what the API server would make of them."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from celpy.evaluation import CELEvalError

from tests.support.judges.kubernetes import VERSIONS, Policy, complaints, name_of, one, pod_of, render

if TYPE_CHECKING:
    from tests.support.judges.kubernetes import Manifest

LABEL = "imds-detour"
ROLES = ("sidecar", "init")


def namespace(role: str | None) -> Manifest:
    """Return a namespace with our label, or without any."""
    return {"metadata": {"name": "ns", **({"labels": {LABEL: role}} if role else {})}}


def app() -> Manifest:
    """Return the pod of the example's app."""
    return pod_of(one(render("example/app"), "Deployment", "app"))


def policy(**data: str) -> Policy:
    """Return our policy with its ConfigMap, to which ``data`` is added."""
    rendered = render("admission")
    params = copy.deepcopy(one(rendered, "ConfigMap", "imds-detour"))
    params["data"].update(data)
    return Policy(one(rendered, "MutatingAdmissionPolicy", "imds-detour"), params)


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_becomes_what_the_component_makes_of_it(role: str) -> None:
    """Both ways lead to the same container; only the mock's name is longer, since it is in another namespace."""
    expected = pod_of(one(render(f"example/{role}"), "Deployment", "app"))["spec"]
    expected["initContainers"][0]["env"][0]["value"] = "mock-metadata.imds-detour.svc.cluster.local."
    before = app()
    after = policy().mutate(before, namespace(role))
    assert after["spec"] == expected
    assert after["metadata"] == before["metadata"]


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("role", ROLES)
def test_the_mutated_pod_is_valid(role: str, version: tuple[int, ...]) -> None:
    """By the official schema of every version with sidecars."""
    assert complaints(policy().mutate(app(), namespace(role)), version) == ""


def test_it_comes_before_the_init_containers_that_are_there() -> None:
    """They may ask for metadata, too; their order stays."""
    pod = app()
    pod["spec"]["initContainers"] = [{"name": name, "image": name} for name in ("migrate", "warm-up")]
    after = policy().mutate(pod, namespace("init"))["spec"]["initContainers"]
    assert [each["name"] for each in after] == ["imds-detour", "migrate", "warm-up"]


def test_a_pod_that_has_it_stays_as_it_is() -> None:
    """The API server may evaluate a policy more than once, and a manifest may bring the container itself."""
    once = policy().mutate(app(), namespace("sidecar"))
    assert policy().mutate(once, namespace("sidecar")) == once


def test_a_pod_for_windows_stays_as_it_is() -> None:
    """There is no netfilter."""
    pod = app()
    pod["spec"]["os"] = {"name": "windows"}
    assert policy().mutate(pod, namespace("sidecar")) == pod
    pod["spec"]["os"] = {"name": "linux"}
    assert policy().mutate(pod, namespace("sidecar")) != pod


def test_the_label_of_a_pod_wins_over_that_of_its_namespace() -> None:
    """And a namespace needs none where the pod has one."""
    pod = app()
    pod["metadata"]["labels"][LABEL] = "init"
    for labelled in ("sidecar", None):
        assert policy().mutate(pod, namespace(labelled))["spec"]["initContainers"][0]["command"][1] == "init"


def test_every_setting_in_the_config_map_reaches_the_container() -> None:
    """All that begin with MOCK_, and nothing else."""
    made = policy(MOCK_TIMEOUT="60", MOCK_LOG="json", note="ours").mutate(app(), namespace("init"))
    environ = {each["name"]: each["value"] for each in made["spec"]["initContainers"][0]["env"]}
    assert {name: environ[name] for name in ("MOCK_TIMEOUT", "MOCK_LOG")} == {"MOCK_TIMEOUT": "60", "MOCK_LOG": "json"}
    assert set(environ) == {"MOCK_HOSTNAME", "MOCK_PORT", "MOCK_TIMEOUT", "MOCK_LOG"}


def test_without_an_image_in_the_config_map_no_pod_is_made() -> None:
    """The expression fails, and the policy says what then: the pod is not created."""
    rendered = render("admission")
    manifest, params = (
        one(rendered, "MutatingAdmissionPolicy", "imds-detour"),
        one(rendered, "ConfigMap", "imds-detour"),
    )
    del params["data"]["image"]
    with pytest.raises(CELEvalError):
        Policy(manifest, params).mutate(app(), namespace("sidecar"))
    assert manifest["spec"]["failurePolicy"] == "Fail"


def selects(selector: Manifest | None, labels: dict[str, str]) -> bool:
    """Whether a label selector takes an object with these labels; the two operators that ours use."""
    checks: dict[str, Any] = {
        "In": lambda key, values: labels.get(key) in values,
        "DoesNotExist": lambda key, _values: key not in labels,
    }
    expressions = (selector or {}).get("matchExpressions", ())
    return all(checks[each["operator"]](each["key"], each.get("values")) for each in expressions)


@pytest.mark.parametrize(
    ("of_pod", "of_namespace"), [*itertools.product((None, *ROLES, "off"), (None, *ROLES, "enabled"))]
)
def test_no_pod_goes_through_two_bindings(of_pod: str | None, of_namespace: str | None) -> None:
    """The pod's label decides where it has one, else the namespace's; other values mean no."""
    bindings = [each for each in render("admission") if each["kind"] == "MutatingAdmissionPolicyBinding"]
    matching = [
        each["metadata"]["name"]
        for each in bindings
        for rules in [each["spec"]["matchResources"]]
        if selects(rules.get("namespaceSelector"), {LABEL: of_namespace} if of_namespace else {})
        and selects(rules.get("objectSelector"), {LABEL: of_pod} if of_pod else {})
    ]
    assert len(matching) == ((of_pod or of_namespace) in ROLES)


def test_the_mock_is_never_redirected() -> None:
    """Not even in a namespace with our label: it would wait for itself."""
    pod = pod_of(one(render("mock"), "Deployment", "mock-metadata"))
    bindings = [each for each in render("admission") if each["kind"] == "MutatingAdmissionPolicyBinding"]
    assert not any(
        selects(each["spec"]["matchResources"]["objectSelector"], pod["metadata"]["labels"]) for each in bindings
    )


def test_the_bindings_name_what_is_there() -> None:
    """Policy and ConfigMap, and what happens without the latter."""
    rendered = render("admission")
    for binding in (each for each in rendered if each["kind"] == "MutatingAdmissionPolicyBinding"):
        assert one(rendered, "MutatingAdmissionPolicy", binding["spec"]["policyName"])
        where = binding["spec"]["paramRef"]
        assert one(rendered, "ConfigMap", where["name"])["metadata"]["namespace"] == where["namespace"]
        assert where["parameterNotFoundAction"] == "Deny"
