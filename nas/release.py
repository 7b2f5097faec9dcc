"""Which release of the program this is."""

from importlib.metadata import PackageNotFoundError, version

PACKAGE = "one-path-nas"


def release() -> str:
    """The version of the installed package; `unknown` where the sources run uninstalled."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"
