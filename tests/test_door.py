"""The door: every argument of every public function is known to it, and what it refuses it refuses in one line."""

import inspect
import itertools
import pickle
import sys
import time
import warnings
from fractions import Fraction
from types import ModuleType

import numpy as np
import pandas
import pytest
import torch
from test_docstrings import PUBLIC

import dufm
from dufm import DufmError, _door, lazy

Tensor = torch.Tensor


def methods(value):
    """Public methods of a class, or the function itself."""
    if inspect.isclass(value):
        return {f".{name}": part for name, part in vars(value).items() if name[0] != "_" and inspect.isfunction(part)}
    return {"": value} if inspect.isfunction(value) else {}


FUNCTIONS = {name + part: f for name, value in PUBLIC.items() for part, f in methods(value).items()}
ARGUMENTS = [
    (name, parameter.name)
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters.values()
    if parameter.name != "self"
]


class Evil:
    """Has an index that is none, and no repr."""

    def __index__(self):
        raise RuntimeError("no index")

    def __repr__(self):
        raise RuntimeError("no repr")


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's, on the prototypes that these layouts are
    ODD_TENSORS = {
        "sparse": torch.eye(4).to_sparse(),
        "compressed": torch.eye(4).to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.eye(4), torch.ones(2, 4)]),
        "jagged": torch.nested.nested_tensor([torch.eye(4), torch.ones(2, 4)], layout=torch.jagged),
        "meta": torch.eye(4, device="meta"),
        "float8": torch.eye(4).to(torch.float8_e4m3fn),
        "float16": torch.eye(4).half(),
        "bfloat16": torch.eye(4).bfloat16(),
        "complex": torch.eye(4).cfloat(),
        "integers": torch.eye(4).long(),
        "booleans": torch.eye(4).bool(),
        "quantised": torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.quint8),
    }
NEITHER = {
    "object": object(),
    "evil": Evil(),
    "text": "three",
    "long text": "three " * 1000,
    "dict": {"a": 1},
    "complex": 1 + 2j,
    "two integers": torch.tensor([3, 3]),
    "many digits": 10**5000,
    "two numbers": np.array([3, 3]),
    "meta": torch.tensor(3, device="meta"),
    "type": int,
    "bool": True,
    "huge": 10**400,
    "tensor of text": np.array("3"),
}
# What no argument of a kind takes: by the type that its annotation names, None where it has several.
HOSTILE = {
    "int": NEITHER
    | {"fraction": 2.5, "a float tensor": torch.tensor(2.9), "an array": np.array(2.9), "negative": -1, "2**63": 2**63}
    | {"nan": float("nan"), "nan tensor": torch.tensor(torch.nan), "boolean tensor": torch.tensor(True)},
    "float": NEITHER
    | {"nan": float("nan"), "inf": float("inf"), "fraction": Fraction(10**400), "a tensor": torch.eye(2)},
    "bool": {"one": 1, "text": "yes", "tensor": torch.tensor(True), "object": object(), "evil": Evil()},
    "str": {"number": 3, "bytes": b"nc", "object": object(), "evil": Evil(), "list": ["nc"]},
    "Tensor": NEITHER
    | ODD_TENSORS
    | {"empty": torch.zeros(0, 4, 4), "nan": torch.full((4, 4), torch.nan), "inf": torch.full((4, 4), -torch.inf)}
    | {"list": [[1.0, 2.0], [3.0, 4.0]], "array": np.eye(4)},
    "ndarray": {"list": [1.0], "text": "a", "texts": np.array(["a"]), "nan": np.array([np.nan]), "empty": np.array([])}
    | {"objects": np.array([None]), "complex": np.array([1j]), "tensor": torch.eye(4), "evil": Evil()},
    "DataFrame": {"dict": {"a": [1]}, "text": "runs", "array": np.eye(2), "evil": Evil()},
}
SEQUENCE = {"object": object(), "evil": Evil(), "text": "abc", "number": 3, "dict": {1: 2}, "matrix": torch.eye(4)}


def hostile(parameter):
    """What an argument must refuse, whatever the others are; by name."""
    kinds = _door.alternatives(parameter.annotation)
    if len(kinds) > 1:
        return {"object": object(), "evil": Evil()}
    (kind,) = kinds
    if kind.startswith(("Sequence[", "Iterable[", "list[")):
        items = {f"with {name}": [item] for name, item in HOSTILE.get(kind.partition("[")[2][:-1], {}).items()}
        endless = {"endless": itertools.repeat(1)} if kind.endswith("[Tensor]") else {}
        return SEQUENCE | endless | items
    if kind == "Any":
        return {}
    return HOSTILE.get(kind, {"object": object(), "text": "words", "number": 3, "evil": Evil()})


def refusal(call):
    """The message of a ``DufmError``, one short line, or a failed test."""
    with pytest.raises(DufmError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and 10 < len(message) <= 1000, message
    return message


def test_every_public_function_stands_at_the_door_and_every_argument_in_its_tables():
    """A room without ``guard(globals())``, or a new argument without a line in the tables, fails here."""
    for name, function in FUNCTIONS.items():
        assert function.__code__.co_filename == _door.__file__, f"{name} has no door"
        for parameter in inspect.signature(function).parameters.values():
            _door.check_of(inspect.unwrap(function), parameter)


def test_a_default_passes_its_own_check():
    for function in FUNCTIONS.values():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default not in (parameter.empty, None):
                _door.check_of(inspect.unwrap(function), parameter)(parameter.name, parameter.default)


def test_the_tables_hold_nothing_that_no_function_has():
    names = set()
    for name, function in FUNCTIONS.items():
        room = name.partition(".")[0]
        for parameter in inspect.signature(function).parameters:
            names |= {parameter, f"{function.__name__}.{parameter}", f"{room}.{parameter}"}
    assert set(_door.INTEGERS) | set(_door.FLOATS) | _door.OWN | _door.FILLED <= names


def test_a_new_function_is_behind_the_door_for_nothing():
    room = ModuleType("room")
    code = "def new(depth: int, Z: 'Tensor | None' = None) -> int:\n    'Doc.'\n    return depth\n"
    exec(code, vars(room))
    room.__all__ = ["new"]
    _door.guard(vars(room))
    assert room.new(np.int64(3)) == 3 and room.new.__doc__ == "Doc." and room.new.__module__ == "room"
    assert "depth must be an integer >= 2, got 2.5" in refusal(lambda: room.new(2.5))
    assert "Z must be finite" in refusal(lambda: room.new(3, Z=torch.full((2, 2), torch.nan)))
    with pytest.raises(TypeError, match="argument"):
        room.new()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_hostile_value_is_refused_by_the_name_of_its_argument(name):
    """Each argument alone, by its own check: no body runs."""
    function = FUNCTIONS[name]
    for parameter in inspect.signature(function).parameters.values():
        check = _door.check_of(inspect.unwrap(function), parameter)
        if check is _door.passed or parameter.name == "self":
            continue
        for what, value in hostile(parameter).items():
            message = refusal(lambda check=check, value=value, at=parameter.name: check(at, value))
            assert message.startswith(parameter.name), (name, what, message)


def test_a_device_is_one_that_is_there(monkeypatch):
    """Where there is a CUDA device, PyTorch reads 3 as the fourth."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for there in ("cpu", "cuda", "cuda:0", torch.device("cpu")):
        assert _door._device("device", there) == there
    for missing in (0, 3, "cuda:1", "mps", "", None):
        message = refusal(lambda at=missing: _door._device("device", at))
        assert message.startswith("device must be cpu, or cuda where there is one")


def test_functions_travel_to_workers_and_keep_their_face():
    for name, function in FUNCTIONS.items():
        bare = inspect.unwrap(function)
        assert pickle.loads(pickle.dumps(function)) is function, name
        assert inspect.signature(function) == inspect.signature(bare) and function.__doc__ == bare.__doc__
        assert function.__module__ == bare.__module__ and function.__qualname__ == bare.__qualname__


def test_the_door_costs_microseconds():
    """Of processor time, least of several; a turning point is one multiplication."""

    def cost(function):
        began = time.process_time()
        for _ in range(1000):
            function(4, 4)
        return (time.process_time() - began) / 1000

    bare = inspect.unwrap(dufm.turning_point)
    assert min(cost(dufm.turning_point) for _ in range(9)) - min(cost(bare) for _ in range(9)) < 20e-6


def test_what_public_functions_call_of_each_other_is_not_checked_again(monkeypatch):
    seen = []
    monkeypatch.setattr(_door, "check_logits", lambda *arguments: seen.append(arguments))
    code = "def new(Z: 'Tensor') -> 'Tensor':\n    return log_loss(Z)\n"
    room = {"__name__": "room", "__all__": ["new"], "Tensor": Tensor, "log_loss": dufm.log_loss}
    exec(code, room)
    _door.guard(room)
    room["new"](torch.eye(2))
    assert len(seen) == 1


# ---------------------------------------------------------------- seen before, smallest first

Z4 = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: dufm.normalized_margin(Z4, torch.tensor(2.9)), "depth must be an integer >= 2, got tensor(2.9000)"),
        (lambda: dufm.normalized_margin(Z4, torch.tensor([2, 3])), "got Tensor of torch.int64 and shape (2,)"),
        (lambda: dufm.balanced_init(Z4, 2**31), "depth must be an integer from 2 to 10000, got 2147483648"),
        (lambda: dufm.balanced_init(Z4, 3, 2**40), "width must be an integer from 1 to"),
        (lambda: dufm.balanced_init(Z4, 3, 10**6), "at most 2**31 numbers"),
        (lambda: dufm.gaussian_init(3, 4, 4, seed=0, batch=10**12), "batch must be an integer from 1 to"),
        (lambda: dufm.gaussian_init(3, 4, 4, seed=0, batch=10**9), "batch, depth and width must ask for at most 2**31"),
        (lambda: dufm.gaussian_init(3, 4, 4, seed=2**63), "seed must be an integer >= 0, got 9223372036854775808"),
        (lambda: dufm.gaussian_init(3, 4, 4, seed=0, scale=10**400), "scale must be a finite positive number, got 1"),
        (lambda: dufm.schatten(Z4, 10**400), "p must be a finite positive number"),
        (lambda: dufm.numerical_rank(Z4, rtol=-1.0), "rtol must be a number from 0 to 1, got -1.0"),
        (lambda: dufm.numerical_rank(Z4, rtol=float("nan")), "rtol must be a number from 0 to 1, got nan"),
        (lambda: dufm.gradient_descent([Z4, Z4], lr=10**400, steps=1), "lr must be a finite positive number"),
        (lambda: dufm.gradient_flow([Z4, Z4], until_log_loss=-(10**400)), "until_log_loss must be a finite number"),
        (lambda: dufm.gradient_flow([Z4, Z4], record={"log_loss": [-(10**400)]}), "record['log_loss'][0] must be"),
        (lambda: dufm.gradient_flow([Z4, Z4], record={"log_loss": torch.eye(9)}), "record['log_loss'] must be a seq"),
        (lambda: dufm.product(3), "factors must be a sequence, got 3"),
        (lambda: dufm.product(Z4), "factors must be a sequence, got Tensor of torch.float64 and shape (4, 4)"),
        (lambda: dufm.product({1: Z4, 2: Z4}), "factors must be a sequence, got {1: tensor"),
        (lambda: dufm.escape_time(-torch.ones(50, 3), 3), "s0 must be positive and finite"),
        (lambda: dufm.hypercube(10**5000), "num_classes must be an integer"),
        (lambda: dufm.log_loss(Z4.to_sparse()), "Z must be a strided tensor"),
        (lambda: dufm.kkt_certificate(Z4, 3, rank=2**64), "rank must be an integer from 1 to 3"),
        (lambda: dufm.characters((100_000, 100_000)), "group: its tables must ask for at most"),
    ],
)  # fmt: skip
def test_what_once_escaped_is_one_line(call, words):
    assert words in refusal(call)


def test_a_generator_of_factors_is_read_once():
    factors = dufm.gaussian_init(3, 5, 4, seed=0)
    assert torch.equal(dufm.product(W for W in factors), dufm.product(factors))
    assert len(dufm.gradient_flow((W for W in factors), until_log_loss=-1.0).factors) == 3


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3), torch.tensor(3).int()])
def test_one_integer_is_one_whatever_its_type(three):
    assert dufm.turning_point(three, three) == dufm.turning_point(3, 3)
    assert isinstance(dufm.turning_point(three, three), float)


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), Fraction(1, 2)])
def test_one_number_is_one_whatever_its_type(half):
    assert dufm.late_separatrix(4, half) == dufm.late_separatrix(4, 0.5)


def test_a_column_of_pandas_is_an_array():
    column = pandas.Series([0.5, 2.0])
    assert np.array_equal(lazy.lazy_law(column, 2, 8, 4, 1.0), lazy.lazy_law(column.to_numpy(), 2, 8, 4, 1.0))


def test_memory_that_is_not_there_is_one_line():
    room = {"__name__": "room", "__all__": ["numpys", "torchs"], "np": np, "torch": torch}
    code = "def numpys():\n    return np.ones(2**60)\ndef torchs():\n    return torch.ones(2**50)\n"
    exec(code, room)
    _door.guard(room)
    for name in room["__all__"]:
        assert f"{name}: these arguments need more memory than there is" in refusal(room[name])


def test_a_message_is_one_line_however_it_was_written():
    assert str(DufmError("a\nb   c")) == "a b c"
    assert len(str(DufmError("x" * 5000))) <= 1000
    assert pickle.loads(pickle.dumps(DufmError("a\nb"))).args == ("a b",)
    assert "pandas" in sys.modules and isinstance(pandas.DataFrame(), pandas.DataFrame)
