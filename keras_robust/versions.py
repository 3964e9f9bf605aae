"""Versions of Python and of packages, for what is written beside a figure."""

import platform
from collections.abc import Iterable
from importlib import metadata


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed, by name."""
    found = {package: version(package) for package in packages}
    return {"python": platform.python_version(), **{name: each for name, each in found.items() if each is not None}}


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
