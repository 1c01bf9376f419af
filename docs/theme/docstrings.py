"""An extension of the API pages: the layout of our docstrings, made Markdown.

    name, other : what they are,        becomes an item of a list; so does "    name : default 200", with the line
        which may go on here            below it, in the Parameters that a model's decorator writes
    Parameters                          becomes bold
    ----------
    formulas, indented                  stay as they are

Text in between is escaped where Markdown would take it for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

ITEM = re.compile(r"( {4})?(\w+(?:, \w+)*) : (.+)")
SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\*_`[]"} | {"<": "&lt;", ">": "&gt;", "$": "&#36;"})
CODE = re.compile(r"(``.+?``|`[^`]+`)")


class PlainDocstrings(griffe.Extension):
    """Rewrites each docstring when its object is found."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """What griffe calls for each module, class, function and attribute."""
        if obj.is_attribute and "property" not in obj.labels:
            obj.docstring = None  # that of the value's type, which says nothing
        elif obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring as Markdown."""
    return "\n".join(_lines(text.expandtabs().splitlines()))


def _lines(lines: list[str]) -> Iterator[str]:
    """Line by line: a heading, an item with what belongs to it, a formula, prose."""
    place, in_list, after_space = 0, False, True
    while place < len(lines):
        line = lines[place]
        if place + 1 < len(lines) and re.fullmatch(r"-{4,}", lines[place + 1].strip()):
            yield from ("", f"**{line.strip()}**", "")
            place, in_list, after_space = place + 2, False, True
        elif item := ITEM.fullmatch(line):
            if not in_list:
                yield ""
            depth, words = len(item[1] or ""), [item[3]]
            while place + 1 < len(lines) and lines[place + 1].startswith(" " * (depth + 4)):
                place += 1
                words.append(lines[place].strip())
            names = ", ".join(f"`{name}`" for name in item[2].split(", "))
            yield f"- {names}: {escaped(_told(words))}"
            place, in_list, after_space = place + 1, True, False
        else:
            if in_list and line.strip():
                yield ""  # ends the list
            code = line.startswith("    ")
            if code and not after_space:
                yield ""
            yield line if code else escaped(line)
            place, in_list, after_space = place + 1, False, code or not line.strip()


def _told(words: list[str]) -> str:
    """An item's text; of "default 200" and the line below it, a sentence."""
    if words[0].startswith("default ") and len(words) > 1:
        return f"{' '.join(words[1:])} ({words[0]})"
    return " ".join(words)


def escaped(text: str) -> str:
    """Prose in which no sign means anything to Markdown, but for code between backticks."""
    parts = CODE.split(text)
    return "".join(part if place % 2 else part.translate(SPECIAL) for place, part in enumerate(parts))
