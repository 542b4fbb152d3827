"""Exercises: settings and calls that a notebook's last section asks for are accepted, change something, and run.

Each has an answer in ``notebooks/answers.md``, where numbers in bold are what a run at its settings prints.
"""

import ast
import contextlib
import importlib
import pkgutil
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

import dufm
from dufm.companion import files, parameters

NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]_*/[0-9][0-9]_*.py"))]
ITEM = re.compile(r"\d+\. (.+)")
CODE = re.compile(r"`([^`]+)`")
QUOTED = re.compile(r"\*\*(.+?)\*\*")
ROOMS = {room.name for room in pkgutil.iter_modules(dufm.__path__) if not room.name.startswith("_")}
SETTING = re.compile(r"(\w+) = (.+?)(?=, \w+ = |$)")


def items(name):
    """The exercises of a notebook, as their text."""
    (cell,) = [cell for cell in parameters._cells(name) if "\n# ## Try it" in cell]
    return [seen[1] for line in cell.splitlines() if (seen := ITEM.fullmatch(line.removeprefix("# ")))]


def settings(text):
    """The settings of an exercise: the code before its colon; a parameter named again is set in a run of its own."""
    runs = [{}]
    for name, value in SETTING.findall(", ".join(CODE.findall(text.split("`:")[0] + "`"))):
        if name in runs[-1]:
            runs.append({})
        runs[-1][name] = value.strip('"')
    return [run for run in runs if run]


def answers():
    """The answers to the exercises of each notebook, by its number."""
    found = {}
    for line in (ROOT / "notebooks" / "answers.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            texts = found[line.removeprefix("## ")] = []
        elif seen := ITEM.fullmatch(line):
            texts.append(seen[1])
    return found


def missing(answer, printed):
    """Numbers that an answer quotes and that stand nowhere in what was printed."""
    return [
        text for text in QUOTED.findall(answer) if not re.search(rf"(?<![\w.]){re.escape(text)}(?!\w|\.\d)", printed)
    ]


def answered():
    """Each exercise: its notebook, its number, its runs and its answer."""
    found = answers()
    return [
        (name, number, settings(text), answer)
        for name in NAMES
        for number, (text, answer) in enumerate(zip(items(name), found[name[:2]], strict=True), start=1)
    ]


ANSWERED = answered()
RUNNING = [exercise for exercise in ANSWERED if exercise[2]]
EXERCISES = [(name, run) for name, _, runs, _ in RUNNING for run in runs]


def of_dufm(text):
    """The expressions of an exercise that name rooms of ``dufm`` and nothing else that is not built in."""
    for code in CODE.findall(text):
        with contextlib.suppress(SyntaxError):
            tree = ast.parse(code, mode="eval")
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"range"}
            if names and names <= ROOMS | {"dufm"}:
                yield code, tree, {name: importlib.import_module(f"dufm.{name}") for name in names & ROOMS}


def expressions():
    return [(name, text, *found) for name in NAMES for text in items(name) for found in of_dufm(text)]


def named(value):
    return value if isinstance(value, str) else ", ".join(f"{name}={given}" for name, given in value.items())


def test_settings_are_read_as_they_are_written():
    assert settings("`scale = 0.2` and `scale = 1.0`: rarer?") == [{"scale": "0.2"}, {"scale": "1.0"}]
    assert settings("`depths = [3], scales = [1e-6]`: is `x = 1` left?") == [{"depths": "[3]", "scales": "[1e-6]"}]
    assert settings("Show that `x` is 1: how?") == []


def test_every_notebook_asks_for_some_change():
    changing = {name for name, _ in EXERCISES}
    assert [name for name in NAMES if not items(name)] == []
    assert len(changing) > len(NAMES) / 2


@pytest.mark.parametrize(("name", "run"), EXERCISES, ids=named)
def test_the_settings_are_accepted_and_change_something(name, run):
    known = {parameter.name: parameter for parameter in parameters.declared(name)}
    assert set(run) <= set(known)
    given = {word: parameters.typed(known[word], value) for word, value in run.items()}
    assert all(value != known[word].default for word, value in given.items())


def printed_at(name, run, folder):
    """What a notebook prints at these settings, on the way to its picture and without a warning."""
    given = [word for pair in run.items() for word in ("-p", "=".join(pair))]
    command = [sys.executable, "-m", "dufm", "reproduce", name, *given, "--jobs", "1", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((folder / "figures").glob(f"{name[:2]}_*.png"))
    made = nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)
    printed = [output for cell in made.cells for output in cell.get("outputs", [])]
    assert "".join(output["text"] for output in printed if output.get("name") == "stderr") == ""
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in printed)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "runs", "answer"),
    [(name, *rest) for name, _, *rest in RUNNING],
    ids=[f"{name}-{n}" for name, n, *_ in RUNNING],
)
def test_it_runs_and_prints_what_its_answer_quotes(name, runs, answer, tmp_path):
    printed = [printed_at(name, run, tmp_path / str(place)) for place, run in enumerate(runs)]
    assert missing(answer, "\n".join(printed)) == []


def test_what_has_no_settings_quotes_no_run():
    assert [(name, number) for name, number, runs, answer in ANSWERED if QUOTED.search(answer) and not runs] == []


def test_every_exercise_has_its_answer():
    assert {number: len(texts) for number, texts in answers().items()} == {name[:2]: len(items(name)) for name in NAMES}


def test_quotations_are_looked_for_as_they_stand():
    assert missing("**0.5** of **12**, as `0.3`", "0.5 12.0 112 0.51") == ["12"]
    assert missing("**0.5**, **3 of 16**", "(0.5) 3 of 16.") == []


@pytest.mark.parametrize("name", NAMES)
def test_the_last_section_leads_to_its_answers(name):
    source = files.source_path(name).read_text(encoding="utf-8")
    assert f"\n# ## Try it ([answers](../answers.md#{name[:2]}))\n" in source


def test_what_they_name_is_there():
    found = expressions()
    for _, _, _, tree, rooms in found:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert hasattr({"dufm": dufm, **rooms}[node.value.id], node.attr)
    assert len(found) > 10


CALLS = [found for found in expressions() if isinstance(found[3].body, ast.Call) and "..." not in found[2]]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "text", "code", "tree", "rooms"), CALLS, ids=[f"{call[0]}-{call[2]}" for call in CALLS]
)
def test_it_can_be_called(name, text, code, tree, rooms):
    with pytest.raises(dufm.DufmError) if "refuses" in text else contextlib.nullcontext():
        eval(compile(tree, name, "eval"), rooms)
