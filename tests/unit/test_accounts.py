"""MOCK_USER and its account, looked up in the texts of passwd(5) and group(5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.config.user import MAX_ID, UserSpec, parse
from imds_detour.errors import DetourError
from imds_detour.process import accounts
from imds_detour.process.accounts import Account

ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
# a comment:x:1:1::/:
short:x:7
letters:x:abc:1::/:
minus:x:-1:-1::/:
beyond:x:4294967295:0::/:
app:x:1000:1001:An app,,,:/home/app:/bin/sh
app:x:2000:2000:the second line of a name:/home/second:/bin/sh
1000:x:3000:3000::/home/digits:
homeless:x:1003:1003:::
+nis:x:1004:1004::/:

last:x:1005:1005::/home/last:/bin/sh"""
GROUP = """\
root:x:0:
app:x:1001:
staff:x:50:other,app
audio:x:29:app
apps:x:60:application,appx
gids:x:70:1000
broken:x:no:app
root2:x:0:nobody
1:x:61:
last:x:1005:app"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app", Account(1000, 1001, (29, 50, 1001, 1005), "/home/app")),
        ("root", Account(0, 0, (0,), "/root")),
        ("0", Account(0, 0, (0,), "/root")),
        ("3000", Account(3000, 3000, (70, 3000), "/home/digits")),
        ("1000", Account(3000, 3000, (70, 3000), "/home/digits")),
        ("2000", Account(2000, 2000, (29, 50, 1005, 2000), "/home/second")),
        ("4711", Account(4711, 0, (0,), "/")),
        ("04711", Account(4711, 0, (0,), "/")),
        (str(MAX_ID), Account(MAX_ID, 0, (0,), "/")),
        ("app:staff", Account(1000, 50, (50,), "/home/app")),
        ("app:4712", Account(1000, 4712, (4712,), "/home/app")),
        ("app:1", Account(1000, 61, (61,), "/home/app")),
        ("4711:staff", Account(4711, 50, (50,), "/")),
        ("4711:4712", Account(4711, 4712, (4712,), "/")),
        ("homeless", Account(1003, 1003, (1003,), "/")),
        ("last", Account(1005, 1005, (1005,), "/home/last")),
    ],
)
def test_account_is_looked_up_like_dockerfile_user(text: str, expected: Account) -> None:
    """MOCK_USER is looked up like USER in a Dockerfile: names before numbers, and the first line of a name."""
    assert accounts.find(parse(text), ACCOUNTS, GROUP) == expected


@pytest.mark.parametrize(
    "name", ["nobody", "App", "ap", "short", "letters", "minus", "beyond", "+nis", "nis", "-1", "#"]
)
def test_unknown_user_is_an_error(name: str) -> None:
    """A user without a valid line in passwd is an error, and never root."""
    with pytest.raises(DetourError, match=r"no user '.*' in /etc/passwd"):
        accounts.find(UserSpec(name, None), ACCOUNTS, GROUP)


@pytest.mark.parametrize("name", ["nogroup", "broken", "Staff"])
def test_unknown_group_is_an_error(name: str) -> None:
    """A group without a valid line in group is an error."""
    with pytest.raises(DetourError, match=f"no group '{name}' in /etc/group"):
        accounts.find(UserSpec("app", name), ACCOUNTS, GROUP)


def test_image_without_passwd_accepts_only_numbers() -> None:
    """Without passwd and group, as in an image FROM scratch, numbers work. For a name the error says to use numbers."""
    assert accounts.find(UserSpec("1000", None), None, None) == Account(1000, 0, (0,), "/")
    assert accounts.find(UserSpec("1000", "1001"), None, None) == Account(1000, 1001, (1001,), "/")
    for user in (UserSpec("app", None), UserSpec("1000", "app")):
        with pytest.raises(DetourError, match="there is no /etc/") as caught:
            accounts.find(user, None, None)
        assert caught.value.remedy == "give numbers, which need no entry: MOCK_USER=uid:gid"


def test_account_has_all_of_a_thousand_groups() -> None:
    """A user that is a member of a thousand groups gets all of them."""
    crowd = ",".join(f"user{number}" for number in range(1000))
    groups = "\n".join(f"g{number}:x:{number}:{crowd},app" for number in range(2000, 3000))
    assert accounts.find(UserSpec("app", None), ACCOUNTS, groups).groups == (1001, *range(2000, 3000))


@pytest.mark.parametrize(
    ("home", "expected"),
    [("/root", {b"HOME": b"/home/app"}), ("/home/someone", {}), ("", {}), ("/root/", {}), (None, {})],
)
def test_home_is_set_only_if_it_is_roots(home: str | None, expected: dict[bytes, bytes]) -> None:
    """HOME is set only if it is root's. Any other HOME is kept, and a missing one stays missing."""
    account = accounts.find(UserSpec("app", None), ACCOUNTS, GROUP)
    assert accounts.home_variable(account, ACCOUNTS, home) == expected


def test_roots_home_is_read_from_passwd() -> None:
    """Root's home is read from passwd, since some images move it. Root keeps its own."""
    passwd = ACCOUNTS.replace(":/root:", ":/var/root:")
    app, root = (accounts.find(UserSpec(name, None), passwd, GROUP) for name in ("app", "root"))
    assert accounts.home_variable(app, passwd, "/var/root") == {b"HOME": b"/home/app"}
    assert accounts.home_variable(root, passwd, "/var/root") == {}


@given(st.text(max_size=200), st.text(max_size=200), st.text(min_size=1, max_size=20))
def test_account_lookup_accepts_any_text(passwd: str, group: str, user: str) -> None:
    """Any texts of passwd and group give an account or an error, and uid 0 only if the user or the file has it."""
    try:
        account = accounts.find(parse(user), passwd, group)
    except (ValueError, DetourError):
        return
    assert account.uid != 0 or ":0:" in passwd or int(user) == 0
    assert 0 <= account.uid <= MAX_ID
    assert account.gid in account.groups
