"""A replacement for importlib.metadata: the bundle has no metadata of distributions.

dnspython asks for optional packages at its import. The real module is large and costly to import, since it imports the
packages for e-mail, ZIP and CSV files.
"""


class PackageNotFoundError(ModuleNotFoundError):
    """The real module's error for a missing distribution."""


def version(distribution_name: str) -> str:
    """Raise the error for a missing distribution."""
    raise PackageNotFoundError(distribution_name)
