"""The ledger of claims, ``notebooks/claims.toml``, and the verdicts on them.

One ``[[claim]]`` a claim. Its ``expected`` is one of ``number ± tolerance``, ``< x``, ``<= x``, ``> x``, ``>= x``
and ``[a, b]``; a hypothesis or something proved may give a rule in words instead.
"""

import difflib
import math
import re
import tomllib
from dataclasses import dataclass

from filelock import FileLock

from dufm import _checkout
from dufm._checks import DufmError

__all__ = ["Claim", "ClaimFailed", "Expected", "check", "ledger", "records", "summary", "table"]

STATUS = ("proved", "measured", "hypothesis", "deviates", "not_run")
SOURCES = ("paper", "companion")
FIELDS = ("id", "statement", "source", "notebook", "quantity", "expected", "status")
NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
GRAMMAR = {
    "±": re.compile(rf"{NUMBER} ± {NUMBER}"),
    "<": re.compile(rf"(<=|>=|<|>) {NUMBER}"),
    "[]": re.compile(rf"\[{NUMBER}, {NUMBER}\]"),
}


class ClaimFailed(AssertionError):
    """A claim that is proved or measured did not come out as published."""


@dataclass(frozen=True)
class Expected:
    """An expectation: ``kind`` is ±, <, <=, >, >=, [] or words; ``numbers`` are its one or two numbers."""

    text: str
    kind: str
    numbers: tuple

    def holds(self, value):
        """Whether ``value`` meets it; NaN never does."""
        if math.isnan(value):
            return False
        a, b = (*self.numbers, 0.0)[:2]
        return {
            "±": lambda: abs(value - a) <= b,
            "<": lambda: value < a,
            "<=": lambda: value <= a,
            ">": lambda: value > a,
            ">=": lambda: value >= a,
            "[]": lambda: a <= value <= b,
        }[self.kind]()

    def show(self, value):
        """``value`` rounded so that what differs between two machines does not show."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not math.isfinite(value):
            return str(value)
        if self.kind == "±" and self.numbers[1] > 0:
            return _fixed(value, self.numbers[1])
        if self.kind in ("<", "<=") and abs(value) < self.numbers[0] / 10:
            return f"below {self.numbers[0] / 10:g}"
        if self.kind == "[]" and abs(value) < 1e-4 * (self.numbers[1] - self.numbers[0]):
            return "0"
        return f"{value:.4g}"


def _fixed(value, tolerance):
    """Fixed point with the decimals of the tolerance; far outside, four digits are enough."""
    decimals = max(0, -math.floor(math.log10(tolerance)))
    rounded = round(value, decimals) + 0.0  # no negative zero
    return f"{rounded:.{decimals}f}" if abs(value) < 1e15 else f"{value:.4g}"


def parse(text, status="measured"):
    """Read an expectation, or raise a ``ValueError`` that states the grammar."""
    for kind, pattern in GRAMMAR.items():
        found = pattern.fullmatch(text)
        if found and kind == "<":
            return Expected(text, found[1], (float(found[2]),))
        if found:
            numbers = (float(found[1]), float(found[2]))
            if (numbers[1] < 0 and kind == "±") or (numbers[0] > numbers[1] and kind == "[]"):
                raise DufmError(f"expected {text!r}: the tolerance is negative or the interval empty")
            return Expected(text, kind, numbers)
    if status in ("hypothesis", "proved") and re.match(r"[A-Za-z]", text):
        return Expected(text, "words", ())
    raise DufmError(
        f"expected {text!r} is none of `number ± tolerance`, `< x`, `<= x`, `> x`, `>= x`, `[a, b]` "
        "(only a hypothesis or something proved may be a rule in words)"
    )


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger."""

    id: str
    statement: str
    source: str
    notebook: str
    quantity: str
    expected: Expected
    status: str
    outcome: str = ""

    @property
    def binding(self):
        """Whether a FAIL is an error."""
        return self.status in ("proved", "measured")


def ledger():
    """All claims, by id, in the order of the file; every entry is checked."""
    path = _checkout.root() / _checkout.LEDGER
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DufmError(f"{path.name}: {error}") from None
    if set(content) - {"claim"}:
        raise DufmError(f"{path.name}: only [[claim]] entries, got {', '.join(sorted(set(content) - {'claim'}))}")
    found = {}
    for entry in content.get("claim", []):
        claim = _claim(entry)
        if claim.id in found:
            raise DufmError(f"claim {claim.id}: this id stands twice in {path.name}")
        found[claim.id] = claim
    return found


def _claim(entry):
    name = f"claim {entry.get('id', '(without id)')}"
    missing = [field for field in FIELDS if not entry.get(field)]
    unknown = sorted(set(entry) - {*FIELDS, "outcome"})
    if missing or unknown:
        raise DufmError(f"{name}: missing {missing}, unknown {unknown}; an entry has {', '.join(FIELDS)} and outcome")
    wrong = [field for field in entry if not isinstance(entry[field], str)]
    if wrong:
        raise DufmError(f"{name}: {', '.join(wrong)} must be text")
    if not re.fullmatch(r"[\w.-]+", entry["id"]):
        raise DufmError(f"{name}: an id holds letters, digits, dots, hyphens and underscores only")
    if entry["status"] not in STATUS:
        raise DufmError(f"{name}: status must be one of {', '.join(STATUS)}, got {entry['status']!r}")
    if entry["source"] not in SOURCES:
        raise DufmError(f"{name}: source must be one of {', '.join(SOURCES)}, got {entry['source']!r}")
    if entry["notebook"] not in _checkout.names():
        raise DufmError(f"{name}: unknown notebook {entry['notebook']!r}; there are {', '.join(_checkout.names())}")
    if entry["status"] == "hypothesis" and not entry.get("outcome"):
        raise DufmError(f"{name}: a hypothesis carries its outcome in words")
    try:
        expected = parse(entry["expected"], entry["status"])
    except DufmError as error:
        raise DufmError(f"{name}: {error}") from None
    return Claim(**{**entry, "expected": expected})


def begin():
    """Forget what an earlier run of this notebook recorded; called by ``notebook.start``."""
    run = _checkout.running
    _update(run.name, lambda _: {"parameters": run.parameters, "published": run.published, "claims": {}})


def forget(name):
    """Drop what a notebook recorded in this output folder."""
    _update(name, lambda _: None)


def _update(name, change):
    path = _checkout.out_dir() / "records.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".records.lock"):  # notebooks run side by side
        content = _checkout.read_json(path, {"notebooks": {}})
        content["notebooks"][name] = change(content["notebooks"].get(name))
        content["notebooks"] = {name: section for name, section in content["notebooks"].items() if section}
        _checkout.write_json(path, content)


def records(path=None):
    """What was recorded, by claim id: ``value``, ``shown``, ``verdict``. Default: the published records."""
    content = _checkout.read_json(path or _checkout.published_records(), {"notebooks": {}})
    return {id: record for section in content["notebooks"].values() for id, record in section["claims"].items()}


def check(id, value):
    """Print one line with the verdict on claim ``id`` and record it.

    Raises :class:`ClaimFailed` if the claim is proved or measured and fails at the published parameters;
    under other parameters the verdict is *not applicable*.
    """
    run, claim = _checkout.running, _lookup(id)
    if run is None:
        raise DufmError(f"claim {id}: call dufm.notebook.start before claims.check")
    if claim.notebook != run.name:
        raise DufmError(f"claim {id} belongs to {claim.notebook}, but {run.name} is running")
    value = _scalar(claim, value)
    verdict = _verdict(claim, value) if run.published else "not applicable"
    shown = claim.expected.show(value)
    print(f"{id}: {shown} | expected {claim.expected.text} | {verdict}")
    kept = float(shown) if re.fullmatch(NUMBER, shown) else None
    record = {"value": kept, "shown": shown, "verdict": verdict}
    _update(run.name, lambda section: {**section, "claims": {**section["claims"], id: record}})
    if verdict == "FAIL" and claim.binding:
        raise ClaimFailed(f"{id}: {claim.quantity} is {shown}, expected {claim.expected.text}")


def _lookup(id):
    claims = ledger()
    if id not in claims:
        near = difflib.get_close_matches(id, claims, n=3, cutoff=0.5) or list(claims)
        raise DufmError(f"unknown claim {id!r}; did you mean {', '.join(near)}?")
    return claims[id]


def _scalar(claim, value):
    words = claim.expected.kind == "words"
    wanted = "True or False" if words and claim.status == "proved" else "a single number"
    try:
        item = value.item() if hasattr(value, "item") else value
        if isinstance(item, bool) and words:
            return item
        if not isinstance(item, (bool, str)) and wanted == "a single number":
            return float(item)
    except (TypeError, ValueError, RuntimeError):
        pass  # an array of several numbers: refused below
    raise DufmError(f"claim {claim.id}: value must be {wanted}, got {value!r}")


def _verdict(claim, value):
    if claim.expected.kind != "words":
        return "PASS" if claim.expected.holds(value) else "FAIL"
    if isinstance(value, bool):
        return "PASS" if value else "FAIL"
    return "REPORTED"


def failures(path, names):
    """Ids of the claims of these notebooks that should pass, at the published parameters, and do not."""
    sections = _checkout.read_json(path, {"notebooks": {}})["notebooks"]
    found = []
    for claim in ledger().values():
        section = sections.get(claim.notebook)
        if claim.binding and claim.notebook in names and section and section["published"]:
            if section["claims"].get(claim.id, {"verdict": "missing"})["verdict"] != "PASS":
                found.append(claim.id)
    return found


def summary(recorded=None):
    """One line a notebook: how many of its claims came out how."""
    recorded = records() if recorded is None else recorded
    counts = {}
    for claim in ledger().values():
        verdict = recorded.get(claim.id, {"verdict": "not run"})["verdict"]
        count = counts.setdefault(claim.notebook, {})
        count[verdict] = count.get(verdict, 0) + 1
    lines = [
        f"{name}: " + ", ".join(f"{n} {verdict}" for verdict, n in sorted(count.items()))
        for name, count in sorted(counts.items())
    ]
    return "\n".join(lines)


def table(recorded=None, *, folder=""):
    """The claims as a Markdown table; ``folder`` is prefixed to the links to notebooks."""
    recorded = records() if recorded is None else recorded
    rows = ["| claim | source | status | quantity | expected | found | verdict | notebook |", "|" + "---|" * 8]
    for claim in ledger().values():
        record = recorded.get(claim.id, {"shown": "", "verdict": "not run"})
        found = claim.outcome if claim.outcome and claim.expected.kind == "words" else record["shown"]
        link = f"[{claim.notebook[:2]}]({folder}{claim.notebook}.ipynb)"
        cells = (
            claim.statement,
            claim.source,
            claim.status.replace("_", " "),
            claim.quantity,
            claim.expected.text,
            found,
            record["verdict"],
            link,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows)


def plain_table(names, reproduced=None):
    """The claims of some notebooks for a terminal: published, and beside it what a run reproduced."""
    published = records()
    header = ("claim", "expected", "published") + (() if reproduced is None else ("reproduced", "verdict"))
    rows = [header]
    for claim in ledger().values():
        if claim.notebook not in names:
            continue
        before = published.get(claim.id, {"shown": "-", "verdict": "-"})
        row = (claim.id, claim.expected.text, before["shown"])
        if reproduced is None:
            rows.append(row)
        else:
            now = reproduced.get(claim.id, {"shown": "-", "verdict": "not reached"})
            rows.append((*row, now["shown"], now["verdict"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
