"""The tables of the README and the guide are those of the recorded results, and a command puts them there."""

import re
from pathlib import Path

import pytest

from benchmarks.pages.fill import PLACE, TABLES, filled, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_recorded_results(page):
    assert filled(page.read_text(), TABLES) == page.read_text()


def test_each_table_is_shown_somewhere_and_each_mark_is_whole():
    text = "\n".join(page.read_text() for page in pages())
    assert {place[2] for place in PLACE.finditer(text)} == set(TABLES)
    marks = re.findall(r"^<!-- (?:table: [\w-]+|end) -->$", text, re.MULTILINE)
    assert len(marks) == 2 * len(PLACE.findall(text))


def test_filling_changes_what_stands_between_the_marks_alone():
    page = "before\n\n<!-- table: one -->\nold\n<!-- end -->\n\nafter\n"
    new = filled(page, {"one": lambda: "| a |\n|---|"})
    assert new == "before\n\n<!-- table: one -->\n\n| a |\n|---|\n\n<!-- end -->\n\nafter\n"
    assert filled(new, {"one": lambda: "| a |\n|---|"}) == new
    with pytest.raises(KeyError):
        filled(page, {})


def test_no_table_of_figures_is_typed_by_hand():
    """Outside of the marks, tables have words."""
    for page in pages():
        outside = PLACE.sub("", page.read_text())
        rows = [line for line in outside.splitlines() if line.startswith("|")]
        typed = [line for line in rows if re.search(r"\d\.\d{3}", line)]
        assert not typed, f"{Path(page).name}: {typed}"
