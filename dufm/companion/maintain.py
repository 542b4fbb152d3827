"""The maintainer's steps: refresh what is committed, write the generated pages, set the public address.

``python -m dufm.companion.maintain notebooks [NN ...]``, ``… figures [NN ...]``, ``… pages``, ``… links [OWNER/REPO]``.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from dufm._error import DufmError
from dufm.companion import claims, files, pages
from dufm.companion.build import QUIET, outputs, own_kernel, read_notebook, source_notebook
from dufm.companion.reproduce import select

__all__ = ["address", "binder", "main", "redraw", "refresh", "run_here", "set_links"]

LINKED = ("pyproject.toml", "README.md", "CITATION.cff", "CONTRIBUTING.md", "INSTALL.md")
RUN = " Run it on [Binder]"


def refresh(wanted):
    """Run notebooks at their defaults and write what they give, each if its claims come out as they should.

    The source is written too, as jupytext gives it back, so that a pair agrees to the blank line.
    """
    root, names = files.root(), select(wanted)
    staging = Path(tempfile.mkdtemp(prefix="dufm-refresh-"))
    os.environ.update(QUIET, DUFM_OUT=str(staging), DUFM_REFRESH="1", DUFM_DEVICE="cpu", DUFM_ROOT=str(root))
    os.environ["DUFM_JOBS"] = "1"
    try:
        own_kernel(staging / "kernel")
        for name in [*(n for n in names if n[:2] != "00"), *(n for n in names if n[:2] == "00")]:
            _refresh_one(root, staging, name)
    finally:
        shutil.rmtree(staging)
        del os.environ["DUFM_OUT"], os.environ["DUFM_REFRESH"]


def _refresh_one(root, staging, name):
    import jupytext
    import nbformat

    source = files.source_path(name)
    began, text = time.perf_counter(), source.read_bytes()
    made = _execute(name)
    seconds = time.perf_counter() - began
    target = source.with_suffix(".ipynb")
    failed = claims.failures(claims.recorded_in([made]), [name])
    if failed:
        raise DufmError(f"{name} does not check {', '.join(failed)}; nothing was written")
    if source.read_bytes() != text:
        raise DufmError(f"{source.name} was edited while it ran; nothing was written")
    drawn = {path.name: path.read_bytes() for path in (staging / "figures").glob(f"{name[:2]}_*")}
    for figure, content in drawn.items():
        files.write_atomic(root / "figures" / figure, content)
    for path in (root / "figures").glob(f"{name[:2]}_*"):
        if path.suffix in (".csv", ".json", ".pdf", ".png") and path.name not in drawn:
            path.unlink()
    _first_screen(made)
    files.write_atomic(target, nbformat.writes(made) + "\n")
    files.write_atomic(source, jupytext.writes(read_notebook(target), fmt="py:percent"))
    _note_time(root, name, seconds)
    print(f"{name} refreshed in {seconds:.0f} s", flush=True)


def _execute(name):
    from nbclient import NotebookClient

    made = source_notebook(name)
    metadata = dict(made.metadata)
    NotebookClient(
        made,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(files.source_path(name).parent)}},
    ).execute()
    made.metadata = {**metadata, "language_info": made.metadata["language_info"]}
    return made


def _first_screen(made):
    """Put the picture just drawn where the notebook shows the published one."""
    pictures = [(cell.source, out, out.metadata.dufm_figure) for cell, out in outputs(made) if _is_picture(out)]
    shown = {name: out["data"] for source, out, name in pictures if "figures.show" in source}
    for source, out, name in pictures:
        if name in shown and "figures.published" in source:
            out["data"] = dict(shown[name])


def _is_picture(output):
    return "dufm_figure" in output.get("metadata", {})


def redraw(wanted):
    """Draw the published figures of some notebooks again from their published numbers, in the notebooks too."""
    import nbformat

    from dufm.companion import figures

    root, numbers = files.root(), {name[:2] for name in select(wanted)}
    for path in sorted(path for path in (root / "figures").glob("*.json") if path.name[:2] in numbers):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DUFM_OUT"] = folder  # empty: the numbers are the published ones
            about = figures.origin(path.stem)
            page = figures.write(path.stem, about)
            for made in Path(folder, "figures").iterdir():
                files.write_atomic(path.parent / made.name, made.read_bytes())
            del os.environ["DUFM_OUT"]
        target = files.source_path(about["notebook"]).with_suffix(".ipynb")
        executed = read_notebook(target)
        for _, output in outputs(executed):
            if _is_picture(output) and output.metadata.dufm_figure == path.stem:
                output["data"] = figures.bundle(page, about["alt"])
        files.write_atomic(target, nbformat.writes(executed) + "\n")


def _note_time(root, name, seconds):
    times = pages.seconds() | {name: seconds}
    rows = [f"{key},{times[key]:.0f}\n" for key in sorted(times) if key in files.names()]
    files.write_atomic(root / "notebooks" / "times.csv", "notebook,seconds\n" + "".join(rows))


def address():
    """Owner and name of the public repository, ``OWNER/REPO``, from pyproject.toml."""
    project = files.read_toml(files.root() / "pyproject.toml")["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def binder(path):
    """Where Binder opens the notebook at ``path``, which is as from the root of the checkout."""
    return f"https://mybinder.org/v2/gh/{address()}/HEAD?urlpath=lab/tree/{path}"


def run_here(name):
    """Last sentence of a notebook's first cell: where to run it with nothing to install."""
    repository, path = address(), files.source_path(name).relative_to(files.root()).with_suffix(".ipynb").as_posix()
    return (
        f"{RUN}({binder(path)}), or on "
        f"[Colab](https://colab.research.google.com/github/{repository}/blob/main/{path}) after "
        f"[two lines](https://github.com/{repository}/blob/main/INSTALL.md#colab)."
    )


def set_links(repository=None):
    """Write the public address wherever it stands: pyproject.toml has it, the other files and each notebook follow.

    Without a new address only the notebooks are brought in line.
    """
    if repository is not None:
        _set_address(repository)
    for name in files.names():
        _write_run_here(name)


def _set_address(repository):
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        raise DufmError(f"the address must be OWNER/REPO, such as OWNER/REPO, got {repository!r}")
    old = address()
    for name in LINKED:
        path = files.root() / name
        text = path.read_text(encoding="utf-8")
        places = rf"(github\.com/|mybinder\.org/v2/gh/){re.escape(old)}(?![\w.-]*\w)"
        files.write_atomic(path, re.sub(places, lambda found: found[1] + repository, text))


def _write_run_here(name):
    """In the source and in the executed notebook, outputs untouched."""
    import nbformat

    source = files.source_path(name)
    cells = source.read_text(encoding="utf-8").split("\n\n# %%")
    cells[1] = _ending_in(run_here(name), cells[1])
    files.write_atomic(source, "\n\n# %%".join(cells))
    target = source.with_suffix(".ipynb")
    if target.is_file():
        executed = read_notebook(target)
        executed.cells[0].source = _ending_in(run_here(name), executed.cells[0].source)
        files.write_atomic(target, nbformat.writes(executed) + "\n")


def _ending_in(line, text):
    """``text`` with ``line`` at its end, in place of the one there."""
    return text.split(RUN)[0] + line


def main(argv):
    """Run a step; bad arguments are one line on stderr and exit code 2."""
    try:
        if argv[:1] == ["notebooks"]:
            refresh(argv[1:])
        elif argv[:1] == ["figures"]:
            redraw(argv[1:])
        elif argv == ["pages"]:
            pages.write_pages()
        elif argv[:1] == ["links"] and len(argv) <= 2:
            set_links(*argv[1:])
        else:
            raise DufmError("expected `notebooks [NN ...]`, `figures [NN ...]`, `pages` or `links [OWNER/REPO]`")
    except DufmError as error:
        print(f"dufm.companion.maintain: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
