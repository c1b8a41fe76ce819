"""Settings as values: parsed variables, and the defaults of the table."""

import math
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.advice import values
from imds_detour.config import settings
from imds_detour.config.mock_address import MockAddress
from imds_detour.config.presets import PRESETS, Proof
from imds_detour.config.services import Service
from imds_detour.config.variables import BY_NAME, VARIABLES, Variable
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError

AWS = PRESETS["aws"]
DEFAULTS = {variable.name: variable.default for variable in VARIABLES if variable.default}


def test_defaults_are_those_of_the_table() -> None:
    """An environment without optional variables gives the same settings as one with all defaults of the table."""
    assert settings.parse({"MOCK_HOSTNAME": "mock"}) == settings.parse({"MOCK_HOSTNAME": "mock", **DEFAULTS})
    assert settings.parse({"MOCK_HOSTNAME": "mock"}) == settings.Settings(
        services=(Service(AWS, MockAddress("mock", 80), AWS.proof),),
        timeout=30.0,
        backend="auto",
        probe=True,
        guard="on",
        user=None,
        keep_net_admin=False,
        no_proxy=True,
        log="text",
    )


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        *(
            (name, name, 80)
            for name in ("mock", "mock_metadata", "_mock", "mock.example.", "a" * 63, "1mock", "0xmock")
        ),
        ("mock:8080", "mock", 8080),
        ("192.0.2.7", IPv4Address("192.0.2.7"), 80),
        ("192.0.2.7:1338", IPv4Address("192.0.2.7"), 1338),
        ("127.0.0.1", IPv4Address("127.0.0.1"), 80),
        ("2001:db8::1", IPv6Address("2001:db8::1"), 80),
        ("[2001:db8::1]", IPv6Address("2001:db8::1"), 80),
        ("[2001:db8::1]:65535", IPv6Address("2001:db8::1"), 65535),
    ],
)
def test_hostname_is_a_name_or_an_address_with_an_optional_port(text: str, host: object, port: int) -> None:
    """MOCK_HOSTNAME may be a name, IPv4 or IPv6; its port overrides MOCK_PORT."""
    (service,) = settings.parse({"MOCK_HOSTNAME": text}).services
    assert service.mock == MockAddress(host, port)  # type: ignore[arg-type]  # object: names and addresses in one table


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("2.5", 2.5), ("0", math.inf), ("0.0", math.inf), ("86400", 86400)]
)
def test_timeout_is_seconds_and_0_is_no_limit(text: str, seconds: float) -> None:
    """MOCK_TIMEOUT may have a fraction; 0 is an infinite timeout."""
    assert settings.parse({"MOCK_HOSTNAME": "mock", "MOCK_TIMEOUT": text}).timeout == seconds


def test_probe_is_on_off_or_a_path() -> None:
    """MOCK_PROBE with a path is on, and replaces the path of the request."""
    probes = {text: settings.parse({"MOCK_HOSTNAME": "mock", "MOCK_PROBE": text}) for text in ("on", "off", "/a?b=c")}
    assert {text: (parsed.probe, parsed.services[0].proof) for text, parsed in probes.items()} == {
        "on": (True, AWS.proof),
        "off": (False, AWS.proof),
        "/a?b=c": (True, Proof(("/a?b=c",), token=AWS.proof.token, accept="200")),
    }


@given(
    st.sampled_from(VARIABLES),
    st.text(max_size=300) | st.binary(max_size=20).map(lambda data: data.decode(errors="surrogateescape")),
)
def test_any_value_is_valid_or_a_printable_error(variable: Variable, text: str) -> None:
    """A random value is valid, or refused with its variable and the allowed values in a printable line."""
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


def test_unknown_variables_begin_with_mock_() -> None:
    """Unknown MOCK_* variables are listed in alphabetical order, without settings and without other names.

    The variables of a Kubernetes Service mock-metadata are not reported; a typo among them is.
    """
    environ = dict.fromkeys((*BY_NAME, "MOCK_Z", "MOCK_A", "MOCKERY", "mock_hostname", "PATH"), "")
    assert settings.unknown(environ) == ("MOCK_A", "MOCK_Z")
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
    """A name close to a setting gets a hint at it; another program's variable gets none."""
    expected = f"{name} is not a setting of imds-detour"
    assert values.unknown(name) == expected + (f" (did you mean {hint}?)" if hint else "")
