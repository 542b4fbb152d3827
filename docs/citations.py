"""The works in references.bib, and how a text names them: ``Lyu & Li (2020)``, ``Jiang et al., ICML 2024``."""

import functools
import re
from pathlib import Path

from pybtex.database import parse_file

__all__ = ["cited", "works"]

_NAME = r"(?:[A-Z]\.\s)*(?:(?:von|van\sder|Fejes)\s)?[A-ZÀ-Ž][\w-]*[a-zß-ž][\w-]*"
_CITATION = re.compile(
    rf"(?P<names>{_NAME}(?:,\s+{_NAME})*(?:\s+&\s+{_NAME}|\s+et\sal\.)?)(?:'s)?,?\s+\(?(?:[A-Z]+\s)?(?P<year>(?:19|20)\d\d)\b"
)


@functools.cache
def works():
    """Key of each work by its names and year; from three authors on the first may stand for all."""
    found = {}
    for key, entry in parse_file(str(Path(__file__).parent / "references.bib")).entries.items():
        persons = entry.persons["author"]
        names = [" ".join([*person.prelast_names, *person.last_names]).strip("{}") for person in persons]
        short = [f"{names[0]} et al."] if len(names) > 2 else []
        for form in [", ".join(names), *short]:
            found[f"{form} {entry.fields['year']}"] = key
    return found


def cited(text):
    """``(start, end, names and year)`` of whatever in ``text`` has the form of a citation."""
    for match in _CITATION.finditer(text):
        names = re.sub(r"\b[A-Z]\.\s", "", match["names"].replace("&", ",")).split()
        yield match.start(), match.end(), f"{' '.join(names).replace(' ,', ',')} {match['year']}"
