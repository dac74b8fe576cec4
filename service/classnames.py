"""Which class a person means by a name: case, articles, plurals and `a picture of` make no difference."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")
_LEAD = re.compile(r"^\s*(?:(?:a|an|the)\s+)?(?:picture|photo|photograph|image|drawing)s?\s+of\s+", re.IGNORECASE)
_ARTICLES = {"a", "an", "the"}


def find_class(text: str, names: Sequence[str]) -> int | None:
    """Position of the class that ``text`` names and says nothing beside; None where there is no such class.

    A name of several parts, such as ``T-shirt/top``, is met by each of them.
    """
    wanted = _words(_LEAD.sub("", text))
    if not wanted:
        return None
    spellings = [[_words(part) for part in {name, *name.split("/")}] for name in names]
    for same in (_equal, _equal_but_for_plural):
        for position, options in enumerate(spellings):
            if any(same(wanted, option) for option in options):
                return position
    return None


def _words(text: str) -> list[str]:
    words = [word.casefold() for word in _WORD.findall(text)]
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return words


def _equal(left: list[str], right: list[str]) -> bool:
    return left == right


def _equal_but_for_plural(left: list[str], right: list[str]) -> bool:
    return len(left) == len(right) and all(_forms(a) & _forms(b) for a, b in zip(left, right, strict=True))


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of."""
    forms = {word}
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y")):
        if word.endswith(ending) and len(word) > len(ending):
            forms.add(word[: -len(ending)] + singular)
    return forms
