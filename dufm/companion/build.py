"""From a notebook's source to an executable notebook, the same byte for byte, and the kernel that runs it."""

import os
from pathlib import Path

from dufm._error import DufmError
from dufm.companion import files

__all__ = ["QUIET", "outputs", "own_kernel", "pair_differs", "read_notebook", "source_notebook"]

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
JUPYTEXT = {"formats": "ipynb,py:percent", "notebook_metadata_filter": "kernelspec,-all"}
#: Environment under which the committed outputs are made.
QUIET = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def source_notebook(name):
    """A notebook built from its source, without outputs: the same ids and metadata every time.

    ``lines_to_next_cell`` stays, so that the way back to text is exact.
    """
    import jupytext

    made = jupytext.read(files.source_path(name), fmt="py:percent")
    made.metadata = {"kernelspec": KERNEL, "jupytext": JUPYTEXT}
    made.nbformat, made.nbformat_minor = 4, 5
    for index, cell in enumerate(made.cells):
        cell.id = f"{name[:2]}-{index:03d}"
        cell.metadata = {key: cell.metadata[key] for key in ("lines_to_next_cell", "tags") if cell.metadata.get(key)}
    return made


def read_notebook(path):
    """The notebook in a file; ``DufmError`` that names the file if it is none."""
    from nbformat import ValidationError, v4, validate

    content = files.read_json(path)
    cells, version = content.get("cells"), (content.get("nbformat"), content.get("nbformat_minor"))
    if not isinstance(cells, list) or [*map(type, version)] != [int, int] or version[0] != 4:
        raise DufmError(f"{path} is no notebook of format 4")
    try:
        validate(content)
        return v4.nbjson.JSONReader().to_notebook(content)
    except (ValidationError, TypeError, RecursionError) as error:  # TypeError: a cell that is no object
        raise DufmError(f"{path} is no notebook: {str(error).splitlines()[0]}") from None


def pair_differs(name):
    """What distinguishes a notebook from its source, in a line; None if they are a pair."""
    import jupytext

    path = files.source_path(name).with_suffix(".ipynb")
    if not path.is_file():
        return f"{path.name} is missing"
    text = files.read_text(files.source_path(name))
    try:
        back = jupytext.writes(read_notebook(path), fmt="py:percent")
    except DufmError as error:
        return str(error)
    if back == text:
        return None
    lines = zip(text.splitlines(), back.splitlines(), strict=False)
    number, (here, there) = next(((i, pair) for i, pair in enumerate(lines, 1) if pair[0] != pair[1]), (0, ("", "")))
    return f"{path.name} and {name}.py differ, first in line {number}: source {here!r}, notebook {there!r}"


def outputs(made):
    """``(cell, output)`` for every output of an executed notebook."""
    return [(cell, output) for cell in made.cells for output in cell.get("outputs", [])]


def own_kernel(folder, command=None):
    """Make ``python3`` mean this interpreter for all that is started from here, whatever kernels are installed.

    ``command``: starts a kernel in place of ipykernel's own; ``{connection_file}`` in it stands for the file of ports.
    """
    from ipykernel.kernelspec import write_kernel_spec

    # jupyter_client's signals would reach whatever stands in the kernel's place, its messages the kernel.
    overrides = {"argv": command, "interrupt_mode": "message"} if command else {}
    write_kernel_spec(str(Path(folder) / "kernels" / "python3"), overrides=overrides)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
