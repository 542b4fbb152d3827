"""The ledger of claims, ``notebooks/claims.toml``, and the verdicts on them, which the executed notebooks keep.

One ``[[claim]]`` a claim; its expectation is one of ``equals`` with ``within``, ``below``, ``above``, ``between``.
"""

import math
import re
import sys
from dataclasses import dataclass

from dufm._error import DufmError
from dufm.companion import files
from dufm.companion.build import outputs, read_notebook
from dufm.companion.words import did_you_mean, number

__all__ = ["Claim", "ClaimFailed", "Verdict", "check", "counts", "failures", "ledger", "recorded", "table"]

STATUS = ("proved", "measured", "hypothesis", "deviates", "not_run")
SOURCES = ("paper", "companion")
FIELDS = ("id", "statement", "source", "quantity", "status")
EXPECTATIONS = ("equals", "below", "above", "between")
OPTIONAL = ("within", "outcome", "pinned", *EXPECTATIONS)


class ClaimFailed(AssertionError):
    """A claim that is proved or measured did not come out as published."""


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger; ``kind`` is equals, below, above or between, ``bounds`` its one or two numbers.

    ``pinned``: the expectation was set after the first look, so that the check is a regression and no test.
    """

    id: str
    statement: str
    source: str
    quantity: str
    kind: str
    bounds: tuple
    status: str
    outcome: str = ""
    pinned: bool = False

    @property
    def expected(self):
        """The expectation in words."""
        a, b = (*map(number, self.bounds), "")[:2]
        words = {"equals": f"{a} ± {b}" if b != "0" else a, "between": f"{a} to {b}"}
        return words.get(self.kind, f"{self.kind} {a}")

    def meets(self, value):
        """Whether ``value`` meets the expectation; NaN and infinities never do."""
        if not math.isfinite(value):
            return False
        a, b = (*self.bounds, 0.0)[:2]
        return {
            "equals": lambda: abs(value - a) <= b,
            "below": lambda: value < a,
            "above": lambda: value > a,
            "between": lambda: a <= value <= b,
        }[self.kind]()

    def show(self, value):
        """``value`` rounded so that what differs between two machines does not show."""
        if not math.isfinite(value):
            return "none" if math.isnan(value) else str(value)
        if self.kind == "equals" and self.bounds[1] > 0 and abs(value) < 1e15:
            decimals = max(0, -math.floor(math.log10(self.bounds[1])))
            return f"{round(value, decimals) + 0.0:.{decimals}f}"
        if self.kind == "below" and abs(value) < self.bounds[0] / 10:
            return f"below {number(self.bounds[0] / 10)}"
        if self.kind == "above" and self.bounds[0] < 0 and abs(value) < -self.bounds[0] / 10:
            return f"above {number(self.bounds[0] / 10)}"
        if self.kind == "between" and abs(value) < 1e-4 * (self.bounds[1] - self.bounds[0]):
            return "0"
        return f"{value + 0.0:.4g}"  # never "-0"

    def found(self, verdict):
        """What was found, in words: quantity, value, expectation."""
        return f"{self.quantity}: {verdict.shown} (expected {self.expected})"

    def judge(self, value):
        """The verdict in a reader's words: holds, fails, refuted (a hypothesis) or deviates."""
        if self.meets(value):
            return "holds"
        return {"hypothesis": "refuted", "deviates": "deviates"}.get(self.status, "fails")


@dataclass(frozen=True)
class Verdict:
    """What a notebook recorded on a claim: its value as shown, and the verdict."""

    shown: str
    verdict: str


def ledger():
    """All claims, by id, in the order of the file; every entry is checked."""
    path, found = files.root() / "notebooks" / "claims.toml", {}
    content = files.read_toml(path)
    entries = content.pop("claim", [])
    listed = isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)
    if content or not listed:
        raise DufmError(f"{path}: [[claim]] entries and nothing else, got {', '.join(sorted(content)) or entries!r}")
    numbers = {name[:2] for name in files.names()}
    for entry in entries:
        claim = _claim(entry, numbers)
        if claim.id in found:
            raise DufmError(f"claim {claim.id}: this id stands twice in the ledger")
        found[claim.id] = claim
    return found


def _claim(entry, numbers):
    name = f"claim {entry.get('id', '(without id)')}"
    missing = [field for field in FIELDS if not entry.get(field)]
    unknown = sorted(set(entry) - {*FIELDS, *OPTIONAL})
    if missing or unknown:
        raise DufmError(f"{name}: missing {missing}, unknown {unknown}; an entry has {', '.join(FIELDS + OPTIONAL)}")
    if not re.fullmatch(r"\d\d-[a-z0-9-]+", str(entry["id"])):
        raise DufmError(f"{name}: an id is the notebook's number and words, such as 57-label-flat")
    texts = [field for field in (*FIELDS, "outcome") if not isinstance(entry.get(field, ""), str)]
    if texts or not isinstance(entry.get("pinned", False), bool):
        raise DufmError(f"{name}: {', '.join(texts) or 'pinned'} must be {'text' if texts else 'true or false'}")
    if entry["id"][:2] not in numbers:
        raise DufmError(f"{name}: no notebook has the number {entry['id'][:2]!r}")
    for field, accepted in (("status", STATUS), ("source", SOURCES)):
        if entry[field] not in accepted:
            raise DufmError(f"{name}: {field} must be one of {', '.join(accepted)}, got {entry[field]!r}")
    if entry["status"] in ("hypothesis", "deviates") and not entry.get("outcome"):
        raise DufmError(f"{name}: a {entry['status']} entry carries its outcome in words")
    kind, bounds = _expectation(name, entry)
    plain = {field: entry[field] for field in (*FIELDS, "outcome", "pinned") if field in entry}
    return Claim(kind=kind, bounds=bounds, **plain)


def _expectation(name, entry):
    given = [kind for kind in EXPECTATIONS if kind in entry]
    if len(given) != 1 or ("within" in entry) != (given == ["equals"]):
        raise DufmError(f"{name}: one of equals with within, below, above, between; got {given or 'none'}")
    value = entry[given[0]]
    bounds = tuple(value) if given == ["between"] and isinstance(value, list) else (value,)
    bounds += (entry["within"],) if given == ["equals"] else ()
    numbers = all(type(x) in (int, float) and abs(x) <= sys.float_info.max for x in bounds)
    right = len(bounds) == (1 if given[0] in ("below", "above") else 2)
    if not (numbers and right) or (given == ["between"] and bounds[0] > bounds[1]) or entry.get("within", 0) < 0:
        raise DufmError(f"{name}: {given[0]} needs finite numbers in order, got {value!r}")
    return given[0], bounds


def check(id, value):
    """Show statement, value, expectation and verdict of claim ``id``; the notebook's output keeps them.

    Raises :class:`ClaimFailed` if the claim is proved or measured and fails at the published parameters; under other
    parameters the verdict is *not applicable*.
    """
    run, claims = files.running(), ledger()
    if id not in claims:
        raise DufmError(f"unknown claim {id!r}; {did_you_mean(id, list(claims))}")
    if run and id[:2] != run.name[:2]:
        raise DufmError(f"claim {id} belongs to {files.find(id)}, but {run.name} is running")
    claim = claims[id]
    try:
        value = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DufmError(f"claim {id}: value must be one number, got {value!r}") from None
    verdict = Verdict(claim.show(value), claim.judge(value) if run is None or run.published else "not applicable")
    _display(claim, verdict)
    if verdict.verdict == "fails":
        raise ClaimFailed(f"{id}: {claim.quantity} is {verdict.shown}, expected {claim.expected}")


def _display(claim, verdict):
    status = claim.status.replace("_", " ") + (", a regression" if claim.pinned else "")
    status += " at the published parameters" if verdict.verdict == "not applicable" else ""
    lines = (f"{verdict.verdict}: {claim.statement}", claim.found(verdict))
    text = f"{claim.id} {lines[0]}\n    {lines[1]}; {status}"
    outcome = f" {claim.outcome}" if claim.outcome else ""
    markdown = f"**{verdict.verdict}** · {claim.statement}{outcome}  \n`{claim.id}`, {status}: {lines[1]}"
    record = {"id": claim.id, "shown": verdict.shown, "verdict": verdict.verdict}
    if files.shell() is None:
        print(text)
    else:
        from IPython.display import display

        display({"text/plain": text, "text/markdown": markdown}, raw=True, metadata={"dufm_claim": record})


def recorded(folder=None, names=None):
    """Verdicts kept in executed notebooks, by claim id: those in ``folder``, default: the published, of these names."""
    paths = sorted((folder or files.root() / "notebooks").glob("**/[0-9][0-9]_*.ipynb"))
    return recorded_in(read_notebook(path) for path in paths if names is None or path.stem in names)


def recorded_in(notebooks):
    """Verdicts kept in these executed notebooks, by claim id."""
    found = (output for made in notebooks for _, output in outputs(made))
    records = [output["metadata"]["dufm_claim"] for output in found if "dufm_claim" in output.get("metadata", {})]
    try:
        return {record["id"]: Verdict(record["shown"], record["verdict"]) for record in records}
    except (KeyError, TypeError):
        raise DufmError(f"a notebook keeps a verdict without id, value shown and verdict among {records}") from None


def failures(records, names):
    """Ids of the claims of these notebooks that should hold and do not, or that published parameters left unchecked."""
    other = {id[:2] for id, record in records.items() if record.verdict == "not applicable"}
    numbers = {name[:2] for name in names}
    found = []
    for claim in ledger().values():
        record = records.get(claim.id)
        wrong = record.verdict == "fails" if record else claim.id[:2] not in other
        if claim.id[:2] in numbers and wrong and claim.status in ("proved", "measured"):
            found.append(claim.id)
    return found


def counts(records, claims=None):
    """One line: how many claims came out how."""
    claims = ledger().values() if claims is None else claims
    words = [records[claim.id].verdict if claim.id in records else "not run" for claim in claims]
    order = ("fails", "refuted", "deviates", "not run", "not applicable", "holds")
    return ", ".join(f"{words.count(word)} {word}" for word in order if word in words)


def table(records, claims, *, folder):
    """Claims as a Markdown table of four columns; ``folder`` is prefixed to the links to notebooks."""
    rows = ["| claim | found | verdict | its name, notebook |", "|---|---|---|---|"]
    for claim in claims:
        record = records.get(claim.id)
        found = claim.found(record) if record else claim.quantity
        found += f". {claim.outcome}" if claim.outcome else ""
        path = files.source_path(files.find(claim.id)).relative_to(files.root() / "notebooks").with_suffix(".ipynb")
        kind = claim.status.replace("_", " ") + (", regression" if claim.pinned else "")
        verdict = record.verdict if record else "not run"
        verdict += f" ({kind})" if verdict != kind else ""
        cells = (claim.statement, found, verdict, f"[{claim.id}]({folder}{path.as_posix()})")
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows)
