"""The app's environment: proxies that would take metadata requests away, and SDKs led by variables alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT, SETTINGS

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

TRAP = "8888"
PROXY = {"http_proxy": f"http://{MOCK}:{TRAP}"}
ENV = {"MOCK_BACKEND": "env"}


def app_sees(network: Network, **environ: str) -> tuple[dict[str, str], str]:
    """Return the app's environment, and what was said on the way there."""
    done = network.raw(DETOUR, "env", environ={**SETTINGS, **environ})
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.decode().splitlines()), done.stderr.decode()


def test_a_proxy_does_not_get_metadata_requests(network: Network) -> None:
    """Curl honours both variables; with MOCK_NO_PROXY=keep the same request goes to the proxy."""
    network.start_mock()
    trap = network.start_faulty("GET=body:trapped", port=TRAP)
    ask = ("curl", "-sS", "--max-time", "5", ID_URL)
    done = network.raw(DETOUR, *ask, environ={**SETTINGS, **PROXY})
    assert done.stdout.decode() == INSTANCE, done.stderr
    assert b"http_proxy is set: " in done.stderr
    done = network.raw(DETOUR, *ask, environ={**SETTINGS, **PROXY, "MOCK_NO_PROXY": "keep"})
    assert done.stdout == b"trapped"
    assert b"MOCK_NO_PROXY=keep: metadata requests go to the proxy" in done.stderr
    assert trap.stdout is not None
    assert trap.stdout.readline().startswith("GET http://"), "the first and only request that it has seen"


def test_both_variables_keep_what_stood_in_either(network: Network) -> None:
    """Programs read the one or the other; a list that one of them had is not lost on those who read the other."""
    network.start_mock()
    seen, _ = app_sees(network, HTTP_PROXY="http://proxy", NO_PROXY="localhost, .corp")
    for name in ("NO_PROXY", "no_proxy"):
        assert seen[name] == f"localhost,.corp,{METADATA},fd00:ec2::254,[fd00:ec2::254]"


@pytest.mark.parametrize(
    "environ",
    [{}, {"http_proxy": ""}, {**PROXY, "no_proxy": "*", "NO_PROXY": "*"}, {"NO_PROXY": "localhost"}],
    ids=["no proxy", "empty", "all exempt", "exemptions alone"],
)
def test_without_need_the_environment_stays_as_it_is(network: Network, environ: dict[str, str]) -> None:
    """Byte by byte, and nothing is said of it."""
    network.start_mock()
    seen, said = app_sees(network, **environ)
    assert seen == {**SETTINGS, **environ}
    assert said.count("\n") == 1


def test_a_switched_off_aws_sdk_is_warned_of(network: Network) -> None:
    """A parent image may have set it, and then no SDK asks anything."""
    network.start_mock()
    _, said = app_sees(network, AWS_EC2_METADATA_DISABLED="true")
    assert "AWS_EC2_METADATA_DISABLED=true keeps AWS SDKs from asking at all: unset it" in said


# MOCK_BACKEND=env: no capability, no rule


def without_net_admin(network: Network, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run `env` behind imds-detour without NET_ADMIN within reach."""
    dropped = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    return network.raw(*dropped, DETOUR, "env", environ={**SETTINGS, **environ})


def test_variables_lead_to_the_mock_without_net_admin(network: Network) -> None:
    """The mock is asked directly; the app gets the variable, and no rule is made."""
    network.start_mock()
    done = without_net_admin(network, **ENV)
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert seen == {**SETTINGS, **ENV, "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{MOCK}:{PORT}"}
    said = done.stderr.decode()
    assert "SDKs that ignore them (known: ec2-metadata for Python" in said
    assert "there is no redirect and no guard" in said
    assert f"{METADATA}:80 -> {MOCK}:{PORT}, endpoint variables, verified IMDSv2 {INSTANCE}" in said
    assert network.ours() == ""


def test_it_is_offered_where_net_admin_lacks_and_never_taken_unasked(network: Network) -> None:
    """The message of a start without the capability names this way out."""
    network.start_mock()
    done = without_net_admin(network)
    assert done.returncode == 125
    assert b"MOCK_BACKEND=env" in done.stderr


def test_a_mock_that_does_not_answer_keeps_the_app_from_starting(network: Network) -> None:
    """Fail closed holds here too."""
    done = without_net_admin(network, **ENV, MOCK_TIMEOUT="0.5")
    assert done.returncode == 125
    assert b"no mock after 0.5 s" in done.stderr


@pytest.mark.parametrize(
    ("endpoints", "reason"),
    [
        ("oci", "MOCK_BACKEND=env cannot lead SDKs to a mock of oci"),
        ("ecs,eks", "cannot serve ecs and eks at once: both need AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ("ecs", "SDKs follow AWS_CONTAINER_CREDENTIALS_FULL_URI to a loopback address only"),
    ],
)
def test_what_variables_cannot_do_is_said(network: Network, endpoints: str, reason: str) -> None:
    """Before the app starts, not by its SDK's silence."""
    network.start_mock()
    done = without_net_admin(network, **ENV, MOCK_ENDPOINTS=endpoints)
    assert done.returncode == 125
    assert reason in done.stderr.decode()


def test_google_and_azure_are_led_by_their_own_variables(network: Network) -> None:
    """Each SDK has its own; the mock is exempt from a proxy as well."""
    network.start_mock()
    done = without_net_admin(network, **ENV, **PROXY, MOCK_ENDPOINTS="gcp,azure")
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert (seen["GCE_METADATA_HOST"], seen["GCE_METADATA_IP"]) == (f"{MOCK}:{PORT}", f"{MOCK}:{PORT}")
    assert seen["AZURE_POD_IDENTITY_AUTHORITY_HOST"] == f"http://{MOCK}:{PORT}"
    assert MOCK in seen["NO_PROXY"].split(",")
