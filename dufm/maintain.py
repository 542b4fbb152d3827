"""The maintainer's steps: refresh what is committed, write README's tables, set the public address.

``python -m dufm.maintain notebooks [NN ...]``, ``python -m dufm.maintain links OWNER/REPO``.
"""

import os
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from dufm import _checkout, claims, notebook
from dufm._checks import DufmError
from dufm.reproduce import QUIET, select, source_notebook

__all__ = ["address", "main", "readme", "refresh", "set_links"]

LINKED = ("pyproject.toml", "README.md", "CITATION.cff")


def refresh(wanted):
    """Run notebooks at their defaults and commit to disk what they give, only if every one of them succeeds."""
    root, names = _checkout.root(), select(wanted)
    names = [name for name in names if name[:2] != "00"] + [name for name in names if name[:2] == "00"]
    for left in root.glob(".refresh-*"):  # by a refresh that was killed
        shutil.rmtree(left)
    staging = Path(tempfile.mkdtemp(dir=root, prefix=".refresh-"))
    os.environ.update(QUIET, DUFM_OUT=str(staging), DUFM_REFRESH="1", DUFM_DEVICE="cpu", DUFM_ROOT=str(root))
    try:
        _keep_the_rest(root, staging, names)
        for name in names:
            _checkout.write_atomic(staging / "notebooks" / f"{name}.ipynb", _execute(name))
            print(f"{name} refreshed", flush=True)
        failed = claims.failures(staging / "records.json", names)
        if failed:
            raise DufmError(f"claims not checked by their notebooks: {', '.join(failed)}; nothing was written")
        _publish(root, staging, names)
    finally:
        shutil.rmtree(staging)
        for variable in ("DUFM_OUT", "DUFM_REFRESH"):
            del os.environ[variable]
    _checkout.write_atomic(root / "README.md", readme())


def _keep_the_rest(root, staging, names):
    """Start from the committed records and figures of the notebooks that are not refreshed."""
    kept = [name for name in _checkout.names() if name not in names]
    sections = _checkout.read_json(root / "notebooks" / "records.json", {"notebooks": {}})["notebooks"]
    _checkout.write_json(staging / "records.json", {"notebooks": {n: s for n, s in sections.items() if n in kept}})
    (staging / "figures").mkdir()
    for about in (root / "figures").glob("*.json"):
        if _checkout.read_json(about, None)["notebook"] in kept:
            for path in about.parent.glob(f"{about.stem}.*"):
                shutil.copyfile(path, staging / "figures" / path.name)


def _execute(name):
    import nbformat
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
        resources={"metadata": {"path": str(_checkout.root() / "notebooks")}},
    ).execute()
    made.metadata = metadata  # the kernel adds the version of the language
    return nbformat.writes(made) + "\n"


def _publish(root, staging, names):
    (root / "figures").mkdir(exist_ok=True)
    fresh = sorted(path.name for path in (staging / "figures").iterdir())
    for name in fresh:
        os.replace(staging / "figures" / name, root / "figures" / name)
    for path in (root / "figures").glob("[0-9][0-9]_*"):
        if path.name not in fresh:  # a figure that no notebook makes any more
            path.unlink()
    for name in names:
        os.replace(staging / "notebooks" / f"{name}.ipynb", root / "notebooks" / f"{name}.ipynb")
    os.replace(staging / "records.json", root / "notebooks" / "records.json")


def readme():
    """README.md with its generated regions, between ``<!-- name:begin -->`` and ``<!-- name:end -->``, rewritten."""
    text = (_checkout.root() / "README.md").read_text(encoding="utf-8")
    rows = ["| notebook | |", "|---|---|"]
    rows += [f"| [{name}](notebooks/{name}.ipynb) | {notebook.title(name)} |" for name in _checkout.names()]
    for region, content in (("claims", claims.table(folder="notebooks/")), ("notebooks", "\n".join(rows))):
        begin, end = f"<!-- {region}:begin -->", f"<!-- {region}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise DufmError(f"README.md needs the marks {begin} and {end} once each")
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def address():
    """Owner and name of the public repository, ``OWNER/REPO``, from pyproject.toml."""
    project = tomllib.loads((_checkout.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def set_links(repository):
    """Write the public address wherever it stands: pyproject.toml has it, the other files follow."""
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        raise DufmError(f"the address must be OWNER/REPO, such as OWNER/REPO, got {repository!r}")
    old = address()
    for name in LINKED:
        path = _checkout.root() / name
        text = path.read_text(encoding="utf-8")
        places = rf"(github\.com/|mybinder\.org/v2/gh/){re.escape(old)}(?![\w.-]*\w)"
        _checkout.write_atomic(path, re.sub(places, lambda found: found[1] + repository, text))


def main(argv):
    """Run a step; bad arguments are one line on stderr and exit code 2."""
    try:
        if argv[:1] == ["notebooks"]:
            refresh(argv[1:])
        elif argv[:1] == ["links"] and len(argv) == 2:
            set_links(argv[1])
        else:
            raise DufmError("expected `notebooks [NN ...]` or `links OWNER/REPO`")
    except DufmError as error:
        print(f"dufm.maintain: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
