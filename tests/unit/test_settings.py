"""Settings as values: how each variable is parsed, and the defaults of the table."""

import math
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.config import settings
from imds_detour.config.mock_address import MockAddress
from imds_detour.config.presets import PRESETS, Proof
from imds_detour.config.services import Service
from imds_detour.config.variables import BY_NAME, VARIABLES, Variable
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError

AWS = PRESETS["aws"]
DEFAULTS = {variable.name: variable.default for variable in VARIABLES if variable.default}


def test_defaults_equal_the_table() -> None:
    """Without variables the settings equal the defaults of the table."""
    assert settings.parse({"MOCK_HOSTNAME": "mock"}) == settings.parse({"MOCK_HOSTNAME": "mock", **DEFAULTS})
    assert settings.parse({"MOCK_HOSTNAME": "mock"}) == settings.Settings(
        services=(Service(AWS, MockAddress("mock", 80), AWS.proof),),
        timeout=30.0,
        backend="auto",
        probe=True,
        guard=True,
        user=None,
        keep_net_admin=False,
        no_proxy=True,
        log="text",
    )


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mock", "mock", 80),
        ("mock_metadata", "mock_metadata", 80),
        ("_mock", "_mock", 80),
        ("mock:8080", "mock", 8080),
        ("mock.example.", "mock.example.", 80),
        ("a" * 63, "a" * 63, 80),
        ("1mock", "1mock", 80),
        ("0xmock", "0xmock", 80),
        ("192.0.2.7", IPv4Address("192.0.2.7"), 80),
        ("192.0.2.7:1338", IPv4Address("192.0.2.7"), 1338),
        ("127.0.0.1", IPv4Address("127.0.0.1"), 80),
        ("2001:db8::1", IPv6Address("2001:db8::1"), 80),
        ("[2001:db8::1]", IPv6Address("2001:db8::1"), 80),
        ("[2001:db8::1]:65535", IPv6Address("2001:db8::1"), 65535),
    ],
)
def test_hostname_accepts_name_address_and_port(text: str, host: object, port: int) -> None:
    """MOCK_HOSTNAME is a name or an address. Its own port overrides MOCK_PORT."""
    (service,) = settings.parse({"MOCK_HOSTNAME": text}).services
    assert service.mock == MockAddress(host, port)  # type: ignore[arg-type]  # object: names and addresses in one table


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("2.5", 2.5), ("0", math.inf), ("0.0", math.inf), ("86400", 86400)]
)
def test_timeout_is_in_seconds_and_0_is_unlimited(text: str, seconds: float) -> None:
    """MOCK_TIMEOUT is a number of seconds with an optional fraction, and 0 means no limit."""
    assert settings.parse({"MOCK_HOSTNAME": "mock", "MOCK_TIMEOUT": text}).timeout == seconds


def test_probe_is_on_off_or_a_path() -> None:
    """MOCK_PROBE is on, off or a path, which means on."""
    probes = {text: settings.parse({"MOCK_HOSTNAME": "mock", "MOCK_PROBE": text}) for text in ("on", "off", "/a?b=c")}
    assert {text: (parsed.probe, parsed.services[0].proof) for text, parsed in probes.items()} == {
        "on": (True, AWS.proof),
        "off": (False, AWS.proof),
        "/a?b=c": (True, Proof("/a?b=c", token=AWS.proof.token)),
    }


@given(
    st.sampled_from(VARIABLES),
    st.text(max_size=300) | st.binary(max_size=20).map(lambda data: data.decode(errors="surrogateescape")),
)
def test_any_value_is_accepted_or_refused_in_one_line(variable: Variable, text: str) -> None:
    """Any text of a variable is accepted, or refused in one printable line with the allowed values."""
    try:
        settings.parse({"MOCK_HOSTNAME": "mock", variable.name: text})
    except DetourError as error:
        refused = error
    else:
        return
    assert (refused.step, refused.status) == ("settings", STATUS_WRAPPER_FAILED)
    assert refused.reason.isprintable()
    assert refused.reason.startswith(f"{variable.name}='")
    assert refused.remedy == f"allowed: {variable.allowed}"


def test_unknown_variables_start_with_mock() -> None:
    """Unknown variables are those with the prefix MOCK_ that are no setting, in alphabetical order."""
    environ = dict.fromkeys((*BY_NAME, "MOCK_Z", "MOCK_A", "MOCKERY", "mock_hostname", "PATH"), "")
    assert settings.unknown(environ) == ("MOCK_A", "MOCK_Z")


def test_kubernetes_service_variables_are_not_unknown() -> None:
    """The variables that Kubernetes derives from a Service mock-metadata are known. A typo among them is not."""
    environ = {
        "MOCK_HOSTNAME": "mock-metadata",
        "MOCK_METADATA_SERVICE_HOST": "10.96.12.34",
        "MOCK_METADATA_SERVICE_PORT": "1338",
        "MOCK_METADATA_SERVICE_PORT_IMDS": "1338",
        "MOCK_METADATA_PORT": "tcp://10.96.12.34:1338",
        "MOCK_METADATA_PORT_1338_TCP": "tcp://10.96.12.34:1338",
        "MOCK_METADATA_PORT_1338_TCP_ADDR": "10.96.12.34",
    }
    assert settings.unknown(environ) == ()
    del environ["MOCK_METADATA_SERVICE_HOST"]
    assert len(settings.unknown(environ)) == 5
    assert settings.unknown({"MOCK_METADATA_SERVICE_HOST": "10.96.12.34", "MOCK_PROT": "1338"}) == ("MOCK_PROT",)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MOCK_HOST_NAME", "MOCK_HOSTNAME"),
        ("MOCK_HOST", "MOCK_HOSTNAME"),
        ("MOCK_ENDPOINT", "MOCK_ENDPOINTS"),
        ("MOCK_LOGS", "MOCK_LOG"),
        ("MOCK_KEEP_NETADMIN", "MOCK_KEEP_NET_ADMIN"),
        ("MOCK_SERVER_URL", ""),
    ],
)
def test_typo_gets_a_hint(name: str, hint: str) -> None:
    """A typo gets a hint, and the variable of another program gets none."""
    assert settings.similar(name) == (f" (did you mean {hint}?)" if hint else "")
