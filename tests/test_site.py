"""What makes the site of the guide: formulas as MathML, each public name on an API page."""

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
    public = {getattr(getattr(recvae, name), "__name__", name) for name in recvae.__all__}  # a module by its own name
    assert {name if "." in name else f"recvae.{name}" for name in public} <= set(named)
    assert {"recvae.models.baselines", "recvae.nn", "recvae.errors"} <= set(named)
    assert len(set(named)) == len(named)


def test_each_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in navigation


def test_formulas_become_mathml():
    on_page_content = loaded("math", "latex2mathml").on_page_content
    page = r'<p>a <span class="arithmatex">\(p(x \mid z) &lt; 1\)</span> b</p><div class="arithmatex">\[\mu\]</div>'
    made = on_page_content(page)
    assert made.count("<math ") == 2
    assert 'display="block"' in made
    assert "arithmatex" not in made
    assert made.startswith("<p>a <math")
