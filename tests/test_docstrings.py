"""What help() and the API pages show: every public name says what it must, its example runs, and it is valid reST."""

import doctest
import importlib
import inspect
import re

import docutils.core
import numpy as np
import pytest
import torch
from docutils import nodes
from docutils.parsers.rst import roles
from test_rooms import ROOMS

import dufm

MODULES = {room: importlib.import_module(f"dufm.{room}") for room in ROOMS}
PUBLIC = {f"{room}.{name}": getattr(module, name) for room, module in MODULES.items() for name in module.__all__}
DOCUMENTED = {name: value for name, value in PUBLIC.items() if callable(value)}
LABELS = {"function": ["Units: ", "Raises: ", "Source: "], "class": ["Units: ", "Source: "]}
# Sphinx's roles, which docutils alone does not know.
for role in ("func", "class", "mod", "data", "meth", "attr"):
    roles.register_local_role(role, lambda name, raw, text, *_: ([nodes.literal(raw, text)], []))


def test_every_public_name_of_the_package_is_one_of_a_room():
    assert {getattr(dufm, name) for name in dufm.__all__} - {dufm.DufmError} <= set(DOCUMENTED.values())


@pytest.mark.parametrize("name", [name for name in dufm.__all__ if name != "DufmError"])
def test_a_docstring_has_its_sections(name):
    value = getattr(dufm, name)
    labels = LABELS["class" if inspect.isclass(value) else "function"]
    *body, last, example = inspect.getdoc(value).split("\n\n")
    assert example.startswith(">>> ")
    assert re.findall(r"(?:^|  |\s)((?:Units|Raises|Source): )", last.replace("\n", " ")) == labels
    assert not re.search(r"(Units|Raises|Source): ", " ".join(body))
    if "Raises: " in labels:
        assert re.search(r"Raises: (``DufmError``|PyTorch's ``\w+Error``) ", last.replace("\n", " "))
    # A shape, or the words for a single number; a formula.
    text = " ".join([*body, last])
    assert re.search(r"``\([^`]*\)``|[Ss]hapes?:? ", text)
    assert re.search(r":math:`|\.\. math::|``[^`]*[·=/×⋯±−…(][^`]*``", text)


@pytest.mark.parametrize("name", dufm.__all__)
def test_an_example_runs_and_prints_what_it_says(name):
    """With nothing but what the package's docstring tells a reader to import, and in few lines."""
    source = inspect.getdoc(getattr(dufm, name))
    names = {"dufm": dufm, "np": np, "torch": torch}
    test = doctest.DocTestParser().get_doctest(source, names, f"dufm.{name}", None, None)
    assert 1 <= len(test.examples) <= 4
    assert any(example.want for example in test.examples)
    said = []
    failed, _ = doctest.DocTestRunner().run(test, out=said.append)
    assert not failed, "".join(said)


def test_the_package_says_what_its_examples_import():
    assert "``import dufm, torch`` and ``import numpy as np``" in " ".join(dufm.__doc__.split())


def test_no_docstring_has_an_example_that_is_not_run():
    run = {getattr(dufm, name) for name in dufm.__all__}
    assert [name for name, value in DOCUMENTED.items() if ">>>" in inspect.getdoc(value) and value not in run] == []


def docstrings():
    """Of the rooms, their public names, and the public methods and properties of their classes."""
    yield "dufm", dufm.__doc__
    for room, module in MODULES.items():
        yield room, module.__doc__
    for name, value in [*DOCUMENTED.items(), ("errors.DufmError", dufm.DufmError)]:
        yield name, value.__doc__
        members = vars(value).items() if inspect.isclass(value) else ()
        yield from ((f"{name}.{part}", member.__doc__) for part, member in members if part[0] != "_" and member.__doc__)


TEXTS = dict(docstrings())


@pytest.mark.parametrize(("name", "text"), TEXTS.items(), ids=TEXTS)
def test_a_docstring_is_valid_restructured_text(name, text):
    settings = {"report_level": 1, "halt_level": 5, "warning_stream": None, "embed_stylesheet": False}
    document = docutils.core.publish_doctree(inspect.cleandoc(text), settings_overrides=settings)
    assert [message.astext() for message in document.findall(nodes.system_message)] == []
    # What stands against a minus sign, as in −``x``, stays text with its backticks.
    assert [part.astext() for part in document.findall(nodes.Text) if "``" in part.astext()] == []
