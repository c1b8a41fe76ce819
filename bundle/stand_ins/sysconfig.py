"""In place of sysconfig: python-iptables looks for its wrapper library by the two things in here.

The real one reads how Python itself was built, some thousand values of which these are one: 2 ms in each child.
"""

import os
from importlib.machinery import EXTENSION_SUFFIXES

_VALUES = {"EXT_SUFFIX": EXTENSION_SUFFIXES[0]}


def get_config_var(name: str) -> str | None:
    """Return a value of the build of Python; None for those that the bundle does not know."""
    return _VALUES.get(name)


def get_path(name: str) -> str:  # noqa: ARG001  (all modules are in one folder here)
    """Return the folder of modules."""
    return os.path.dirname(__file__)
