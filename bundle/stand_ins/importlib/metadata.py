"""In place of importlib.metadata: the bundle has no metadata of distributions in it, so none is ever found.

dnspython asks at its import which optional packages there are. To have the answer, the real one imports the packages
for e-mail, ZIP and CSV files: 0.4 MB of the bundle, and 15 ms before the first query.
"""


class PackageNotFoundError(ModuleNotFoundError):
    """No such distribution; as in the real module."""


def version(distribution_name: str) -> str:
    """Say that there is no such distribution."""
    raise PackageNotFoundError(distribution_name)
