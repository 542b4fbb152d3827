"""The one error of the package; nothing is loaded for it."""

__all__ = ["DufmError", "needs"]

_LONGEST = 1000
# What the extra "notebooks" brings, by the name under which it is imported.
_NOTEBOOKS = {
    "IPython", "PIL", "ipykernel", "ipywidgets", "joblib", "jupytext", "matplotlib", "nbclient", "nbformat", "pandas",
    "papermill", "psutil", "sklearn", "threadpoolctl", "torchdiffeq",
}  # fmt: skip


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


def needs(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error with what to install, where ``what`` needs a package that the notebooks bring; any other as it is."""
    if error.name not in _NOTEBOOKS:
        return error
    return ModuleNotFoundError(f"{what} needs {error.name}: pip install 'dufm[notebooks]'", name=error.name)
