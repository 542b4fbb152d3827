"""The one error of the package; nothing is loaded for it."""

__all__ = ["DufmError"]

_LONGEST = 1000


class DufmError(ValueError):
    """Bad input: the message, in one line, names the argument, the value, and what is accepted.

    A ``ValueError``: either name catches it.  Every public function refuses at its door, before it computes.

    Units: none.  Source: this companion.

    >>> dufm.polygon(2)
    Traceback (most recent call last):
        ...
    dufm._error.DufmError: num_classes must be an integer >= 3, got 2: a polygon needs three vertices
    """

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).split())
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 60]} … {line[-50:]}")
