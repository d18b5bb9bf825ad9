"""The oldest build of clients, as a value of a configuration: control says it, nodes enforce it."""

from typing import TYPE_CHECKING, Final

from khala_contracts.builds import parse_version

if TYPE_CHECKING:
    import attrs

MIN_BUILD_DESCRIPTION: Final = "Oldest build of clients that may connect, a version; 0: any. The same for control, which tells it, and nodes."


def check_min_build(_instance: object, _field: "attrs.Attribute[str]", value: str) -> None:
    """Raise ValueError unless the value is a version."""
    if parse_version(value) is None or "/" in value:
        raise ValueError("expected a version like 0.2.0, or 0 for any")
