"""Words for the enums of the wire: the only place that knows their prefixes.

A domain enum is a Python Enum whose values are lower-case words; in proto the same member is
``<PREFIX>_<WORD IN CAPITALS>``. The zero value, UNSPECIFIED, has no word.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from khala_contracts import reason_codes
from khala_contracts.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import EnumDescriptor

__all__ = ["EnumMap", "EnumWords", "enum_prefix"]

_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

E = TypeVar("E", bound=Enum)


def enum_prefix(enum_name: str) -> str:
    """Return the prefix of an enum's values: ``RunState`` gives ``RUN_STATE_``."""
    return _CAPITAL.sub("_", enum_name).upper() + "_"


class EnumWords:
    """Both directions between the numbers of one proto enum and its lower-case words."""

    def __init__(self, descriptor: EnumDescriptor) -> None:
        prefix = enum_prefix(descriptor.name)
        self._words = {
            value.number: value.name.removeprefix(prefix).lower()
            for value in descriptor.values
            if value.number != 0
        }
        self._numbers = {word: number for number, word in self._words.items()}

    @property
    def words(self) -> Mapping[int, str]:
        """Every number but 0, with its word."""
        return self._words

    def word(self, number: int, *, field: str = "") -> str:
        """Return the word of a number.

        Raises:
            WireError: malformed_message; unspecified, or unknown to this build.
        """
        word = self._words.get(number)
        if word is None:
            raise WireError(reason_codes.MALFORMED_MESSAGE, "a known value other than unspecified", field)
        return word

    def number(self, word: str) -> int:
        """Return the number of a word. Raises KeyError: our mistake."""
        return self._numbers[word]


class EnumMap(Generic[E]):
    """Both directions between a proto enum and a domain enum that has exactly its words."""

    def __init__(self, domain: type[E], descriptor: EnumDescriptor) -> None:
        words = EnumWords(descriptor).words
        self._members: dict[int, E] = {number: domain(word) for number, word in words.items()}
        names = {value.number: value.name for value in descriptor.values}
        self._names: dict[E, str] = {member: names[number] for number, member in self._members.items()}
        if len(self._names) != len(domain):
            message = f"{domain.__name__} and {descriptor.full_name} differ"
            raise ValueError(message)

    def to_wire(self, member: E) -> str:
        """Return the name of a member on the wire, which generated constructors take."""
        return self._names[member]

    def from_wire_untrusted(self, number: int, field: str) -> E:
        """Return the member of a number.

        Raises:
            WireError: malformed_message; unspecified, or unknown to this build.
        """
        member = self._members.get(number)
        if member is None:
            raise WireError(reason_codes.MALFORMED_MESSAGE, "a known value other than unspecified", field)
        return member
