"""MOCK_USER as a value, and its account by the texts of passwd(5) and group(5)."""

import re

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
root2:x:0:other
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
def test_account_follows_the_rules_of_user_in_a_dockerfile(text: str, expected: Account) -> None:
    """A name comes first, then a number. The first line of a name counts, and a given group replaces all others."""
    assert accounts.find(parse(text), ACCOUNTS, GROUP) == expected


UNKNOWN = ("absent", "App", "ap", "short", "letters", "minus", "beyond", "+nis", "nis", "-1", "#")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        *((UserSpec(name, None), f"no user '{name}' in /etc/passwd") for name in UNKNOWN),
        *((UserSpec("app", name), f"no group '{name}' in /etc/group") for name in ("nogroup", "broken", "Staff")),
    ],
)
def test_unknown_user_or_group_is_an_error(spec: UserSpec, words: str) -> None:
    """A name in a line that is not a valid entry is unknown, and never root."""
    with pytest.raises(DetourError, match=re.escape(words)):
        accounts.find(spec, ACCOUNTS, GROUP)


def test_image_without_passwd_allows_numbers_only() -> None:
    """In an image from scratch, numbers work. The error for a name asks for numbers."""
    assert accounts.find(UserSpec("1000", None), None, None) == Account(1000, 0, (0,), "/")
    assert accounts.find(UserSpec("1000", "1001"), None, None) == Account(1000, 1001, (1001,), "/")
    for spec in (UserSpec("app", None), UserSpec("1000", "app")):
        with pytest.raises(DetourError, match="there is no /etc/") as caught:
            accounts.find(spec, None, None)
        assert caught.value.remedy == "give numbers, which need no entry: MOCK_USER=uid:gid"


def test_account_has_all_of_a_thousand_groups() -> None:
    """A member of 1,000 groups with 1,000 members each gets every group."""
    crowd = ",".join(f"user{number}" for number in range(1000))
    groups = "\n".join(f"g{number}:x:{number}:{crowd},app" for number in range(2000, 3000))
    assert accounts.find(UserSpec("app", None), ACCOUNTS, groups).groups == (1001, *range(2000, 3000))


@pytest.mark.parametrize("root", ["/root", "/var/root"])
def test_home_changes_only_if_it_is_roots(root: str) -> None:
    """HOME becomes the user's if it is root's by passwd. Another HOME, an unset one and root's own stay."""
    passwd = ACCOUNTS.replace(":/root:", f":{root}:")
    app, superuser = (accounts.find(UserSpec(name, None), passwd, GROUP) for name in ("app", "root"))
    assert accounts.home_variable(app, passwd, root) == {b"HOME": b"/home/app"}
    assert accounts.home_variable(superuser, passwd, root) == {}
    for home in ("/home/someone", "", f"{root}/", None):
        assert accounts.home_variable(app, passwd, home) == {}


@given(st.text(max_size=200), st.text(max_size=200), st.text(min_size=1, max_size=20))
def test_any_file_gives_an_account_or_an_error(passwd: str, group: str, user: str) -> None:
    """Random texts of passwd and group never make another user root, and raise no other exception."""
    try:
        account = accounts.find(parse(user), passwd, group)
    except (ValueError, DetourError):
        return
    assert account.uid != 0 or ":0:" in passwd or int(user) == 0
    assert 0 <= account.uid <= MAX_ID
    assert account.gid in account.groups
