"""A string that does not print itself, and the files that hold one."""

import hmac
from pathlib import Path
from typing import Final

# A credential is a line of text. Larger: somebody passed the wrong file.
SECRET_FILE_MAX_BYTES: Final = 1 << 16


class Secret:
    """Holds a credential; only `reveal` gives it back.

    repr, str and format give ``***``, so that a secret which reaches a log line, an exception or a
    printed configuration stays one. Equality takes the same time for every wrong value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential itself, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)


def read_secret_file(file: Path) -> Secret:
    """Return the content of a file without its final line break.

    Raises:
        ValueError: unreadable, empty, not UTF-8 or above SECRET_FILE_MAX_BYTES; the text names the
            file, never its content.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(SECRET_FILE_MAX_BYTES + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"file {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        # Not chained: the exception quotes the bytes.
        raise ValueError(f"file {file} is not UTF-8 text") from None
    if not text or len(content) > SECRET_FILE_MAX_BYTES:
        raise ValueError(f"file {file} is empty or too large")
    return Secret(text)
