"""The app's environment: proxy variables, and MOCK_BACKEND=env with its endpoint variables."""

import subprocess

import pytest

from tests.support.faults.capabilities import without
from tests.support.hosts.network import DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT, SETTINGS, Network, read_line

PROXY_PORT = "8888"
PROXY = {"http_proxy": f"http://{MOCK}:{PROXY_PORT}"}
ENV = {"MOCK_BACKEND": "env"}


def app_environment(network: Network, **environ: str) -> tuple[dict[str, str], str]:
    """Start `env` with imds-detour; return the app's environment, and stderr."""
    done = network.raw(DETOUR, "env", environ={**SETTINGS, **environ})
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.decode().splitlines()), done.stderr.decode()


def test_proxy_does_not_get_metadata_requests(mocked: Network) -> None:
    """With http_proxy set, curl sends metadata requests to the mock; with MOCK_NO_PROXY=keep, to the proxy."""
    proxy = mocked.start_faulty("GET=body:proxied", port=PROXY_PORT)
    ask = ("curl", "-sS", "--max-time", "5", ID_URL)
    done = mocked.raw(DETOUR, *ask, environ={**SETTINGS, **PROXY})
    assert done.stdout.decode() == INSTANCE, done.stderr
    assert b"http_proxy is set: " in done.stderr
    done = mocked.raw(DETOUR, *ask, environ={**SETTINGS, **PROXY, "MOCK_NO_PROXY": "keep"})
    assert done.stdout == b"proxied"
    assert b"MOCK_NO_PROXY=keep: metadata requests go to the proxy" in done.stderr
    assert read_line(proxy).startswith("GET http://"), "the only request at the proxy"


def test_no_proxy_keeps_the_existing_entries(mocked: Network) -> None:
    """Both variables get the entries of either and the metadata addresses; a disabled AWS SDK gives a warning."""
    environ = {"HTTP_PROXY": "http://proxy", "NO_PROXY": "localhost, .corp", "AWS_EC2_METADATA_DISABLED": "true"}
    seen, stderr = app_environment(mocked, **environ)
    assert "AWS_EC2_METADATA_DISABLED=true keeps AWS SDKs from asking at all: unset it" in stderr
    for name in ("NO_PROXY", "no_proxy"):
        assert seen[name] == f"localhost,.corp,{METADATA},fd00:ec2::254,[fd00:ec2::254]"


@pytest.mark.parametrize(
    "environ",
    [{}, {"http_proxy": ""}, {**PROXY, "no_proxy": "*", "NO_PROXY": "*"}, {"NO_PROXY": "localhost"}],
    ids=["no proxy", "empty", "all exempt", "NO_PROXY only"],
)
def test_environment_without_a_proxy_is_unchanged(mocked: Network, environ: dict[str, str]) -> None:
    """An environment that needs no exemption is unchanged, and stderr does not mention it."""
    seen, stderr = app_environment(mocked, **environ)
    assert (seen, stderr.count("\n")) == ({**SETTINGS, **environ}, 1)


# MOCK_BACKEND=env: no capability and no rules


def without_net_admin(network: Network, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run `env` with imds-detour and without the NET_ADMIN capability."""
    return network.raw(*without("net_admin"), DETOUR, "env", environ={**SETTINGS, **environ})


def test_env_backend_works_without_net_admin(mocked: Network) -> None:
    """MOCK_BACKEND=env verifies the mock, sets the endpoint variable and installs no rule."""
    done = without_net_admin(mocked, **ENV)
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert seen == {**SETTINGS, **ENV, "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{MOCK}:{PORT}"}
    stderr = done.stderr.decode()
    assert "SDKs that ignore them (known: ec2-metadata for Python" in stderr
    assert "there is no redirect and no guard" in stderr
    assert f"{METADATA}:80 -> {MOCK}:{PORT}, endpoint variables, verified IMDSv2 {INSTANCE}" in stderr
    assert mocked.detour_rules() == ""


NO_MOCK = {"MOCK_PORT": "9", "MOCK_TIMEOUT": "0.5"}


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "MOCK_BACKEND=env"),
        (ENV | NO_MOCK, "no mock after 0.5 s"),
        (ENV | {"MOCK_ENDPOINTS": "oci"}, "MOCK_BACKEND=env cannot lead SDKs to a mock of oci"),
        (ENV | {"MOCK_ENDPOINTS": "ecs,eks"}, "ecs and eks at once: both need AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        (ENV | {"MOCK_ENDPOINTS": "ecs"}, "SDKs follow AWS_CONTAINER_CREDENTIALS_FULL_URI to a loopback address only"),
    ],
    ids=["a start that does not choose env itself", "no mock", "oci", "two of one variable", "ecs"],
)
def test_start_without_net_admin_fails_before_the_app(mocked: Network, environ: dict[str, str], reason: str) -> None:
    """Without NET_ADMIN a start names MOCK_BACKEND=env; that needs a mock, and endpoints that variables redirect."""
    done = without_net_admin(mocked, **environ)
    assert (done.returncode, done.stdout) == (125, b"")
    assert reason in done.stderr.decode()


def test_env_backend_sets_google_and_azure_variables(mocked: Network) -> None:
    """MOCK_BACKEND=env sets the variables of the Google and Azure SDKs, and exempts the mock from the proxy."""
    done = without_net_admin(mocked, **ENV, **PROXY, MOCK_ENDPOINTS="gcp,azure")
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert (seen["GCE_METADATA_HOST"], seen["GCE_METADATA_IP"]) == (f"{MOCK}:{PORT}", f"{MOCK}:{PORT}")
    assert seen["AZURE_POD_IDENTITY_AUTHORITY_HOST"] == f"http://{MOCK}:{PORT}"
    assert MOCK in seen["NO_PROXY"].split(",")
