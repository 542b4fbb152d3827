"""The pages that are generated: LEDGER.md, and the regions of README.md between ``<!-- name:begin -->`` marks."""

from dufm._error import DufmError
from dufm.companion import claims, files
from dufm.companion.parameters import title

__all__ = ["by_part", "filled", "ledger_page", "overview", "parts", "readme", "seconds", "write_pages"]

INTRODUCTION = """# Ledger of claims

Every claim of this companion, the paper's and its own, with the number its notebook found. *Holds*: the number met the
expectation; *refuted*: a hypothesis did not; *deviates*: a claim did not come out as stated, and its notebook says why.
This page is generated from `notebooks/claims.toml` and the executed notebooks.
"""


def seconds():
    """Seconds a notebook takes at its defaults, by name, as last measured."""
    path = files.root() / "notebooks" / "times.csv"
    if not path.is_file():
        return {}
    rows = [line.split(",") for line in files.read_text(path).splitlines()]
    try:
        if rows[:1] != [["notebook", "seconds"]]:
            raise ValueError
        return {name: float(seconds) for name, seconds in rows[1:]}
    except ValueError:
        raise DufmError(f"{path} must hold the columns notebook and seconds, and a number in each row") from None


def ledger_page():
    """Text of LEDGER.md."""
    records, known = claims.recorded(), claims.ledger().values()
    parts = [INTRODUCTION, f"In all: {claims.counts(records)}.\n"]
    for name in files.names():
        mine = [claim for claim in known if claim.id[:2] == name[:2]]
        if mine:
            parts.append(f"## {name[:2]} {title(name)}\n\n{claims.table(records, mine, folder='notebooks/')}\n")
    return "\n".join(parts)


def by_part():
    """``(folder, entry of parts.toml, its notebooks)`` for each part."""
    for folder, part in files.read_toml(files.root() / "notebooks" / "parts.toml").items():
        if not isinstance(part, dict) or not {"title", "question", "answer", "figure"} <= set(part):
            raise DufmError(f"parts.toml: {folder} must be a table of title, question, answer and figure, got {part!r}")
        yield folder, part, [name for name in files.names() if files.source_path(name).parent.name == folder]


def parts():
    """The parts as a table for README: question, answer, minutes, first notebook."""
    took, rows = seconds(), ["| part | question | answer | minutes | start with |", "|---|---|---|---|---|"]
    for folder, part, names in by_part():
        time = sum(took.get(name, 0.0) for name in names) / 60
        link = f"[{names[0][:2]}](notebooks/{folder}/{names[0]}.ipynb)"
        rows.append(f"| {part['title']} | {part['question']} | {part['answer']} | {time:.0f} | {link} |")
    return "\n".join(rows)


def overview():
    """``(title, question, answer, figure, notebooks as a Markdown list)`` for each part, links as from notebooks/."""
    took = seconds()
    for folder, part, names in by_part():
        links = [
            f"- [{name[:2]}]({folder}/{name}.ipynb) {title(name)} ({max(took.get(name, 0.0) / 60, 0.1):.1f} min)"
            for name in names
        ]
        yield part["title"], part["question"], part["answer"], part["figure"], "\n".join(links)


def readme():
    """README.md with its generated regions rewritten."""
    text = files.read_text(files.root() / "README.md")
    records, known = claims.recorded(), claims.ledger().values()
    paper = claims.table(records, [claim for claim in known if claim.source == "paper"], folder="notebooks/")
    totals = f"All {len(known)} claims: {claims.counts(records)}; every one stands in [LEDGER.md](LEDGER.md)."
    for region, content in (("claims", paper), ("totals", totals), ("parts", parts())):
        text = filled(text, region, content)
    return text


def filled(text, region, content):
    """README's ``text`` with ``content`` between the marks of a region; ``DufmError`` unless each stands there once."""
    begin, end = f"<!-- {region}:begin -->", f"<!-- {region}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise DufmError(f"README.md needs the marks {begin} and {end} once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def write_pages():
    """Write both pages."""
    files.write_atomic(files.root() / "LEDGER.md", ledger_page())
    files.write_atomic(files.root() / "README.md", readme())
