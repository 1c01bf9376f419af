"""A hook of the site: formulas, which Arithmatex has marked, become MathML, that browsers show without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)

FUNCTION = re.compile(r"(<mi>log</mi>)")  # after which browsers leave no space


def on_page_content(content: str, **_: Any) -> str:
    """What MkDocs calls with the HTML of each page. A formula that cannot be read ends the build."""
    return MARKED.sub(_mathml, content)


def _mathml(marked: re.Match[str]) -> str:
    display = "block" if marked[2] == "[" else "inline"
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', convert(html.unescape(marked[3]).strip(), display=display))
