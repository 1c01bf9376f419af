"""What makes the site of the guide: docstrings as Markdown, formulas as MathML, each public name on an API page."""

import importlib.util
import re
from pathlib import Path

import pytest

import recvae

DOCS = Path(__file__).parents[1] / "docs"


def loaded(name, needs):
    pytest.importorskip(needs)
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "theme" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_public_name_has_its_place_on_an_api_page():
    named = re.findall(r"^::: ([\w.]+)$", "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md")), re.M)
    assert {f"recvae.{name}" for name in recvae.__all__} <= set(named)
    assert {"recvae.models.baselines", "recvae.nn", "recvae.errors"} <= set(named)
    assert len(set(named)) == len(named)


def test_each_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in navigation


def test_docstrings_become_markdown():
    as_markdown = loaded("docstrings", "griffe").as_markdown
    text = (
        "A title with user_items and a * b.\n\nepochs, stop_after : how long\n    it goes on\nbeta : weight\n\n"
        "Raises an error.\n\n    x * y <- formula\n\nParameters\n----------\n"
        "    l2 : default 300.0\n        a penalty\n"
    )
    assert as_markdown(text).split("\n") == [
        r"A title with user\_items and a \* b.",
        "",
        "",
        "- `epochs`, `stop_after`: how long it goes on",
        "- `beta`: weight",
        "",
        "Raises an error.",
        "",
        "    x * y <- formula",
        "",
        "",
        "**Parameters**",
        "",
        "",
        "- `l2`: a penalty (default 300.0)",
    ]
    assert as_markdown("as `a_b[0]` has it, [0, 1)") == r"as `a_b[0]` has it, \[0, 1)"


def test_formulas_become_mathml():
    on_page_content = loaded("math", "latex2mathml").on_page_content
    page = r'<p>a <span class="arithmatex">\(p(x \mid z) &lt; 1\)</span> b</p><div class="arithmatex">\[\mu\]</div>'
    made = on_page_content(page)
    assert made.count("<math ") == 2
    assert 'display="block"' in made
    assert "arithmatex" not in made
    assert made.startswith("<p>a <math")
