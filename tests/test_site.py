"""What makes the site of the guide: formulas as MathML, each public name on an API page."""

import importlib.util
import inspect
import pkgutil
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


def documented():
    """The functions, classes and methods of the API pages, by their names."""
    found = {}
    for page in sorted((DOCS / "api").glob("*.md")):
        for path in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M):
            value = pkgutil.resolve_name(path)
            values = [value]
            if inspect.ismodule(value):
                values = [getattr(value, name) for name in getattr(value, "__all__", dir(value)) if name[0] != "_"]
            for value in values:
                if inspect.isclass(value) and not issubclass(value, BaseException):
                    members = [inspect.getattr_static(value, name) for name in dir(value) if name[0] != "_"]
                    values = [*values, *(getattr(member, "__func__", member) for member in members)]
            for value in values:
                if inspect.isfunction(value) or (inspect.isclass(value) and not issubclass(value, BaseException)):
                    found[f"{value.__module__}.{value.__qualname__}"] = value
    return {name: value for name, value in found.items() if name.startswith("recvae")}


def described(value, *sections):
    """The names in sections of a numpydoc docstring, in their order."""
    text, names = inspect.getdoc(value) or "", []
    for section in sections:
        found = re.search(rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)", text, re.S | re.M)
        for line in re.findall(r"^\S.*$", found[1], re.M) if found else []:
            names += line.split(" : ")[0].split(", ")
    return names


def test_docstrings_have_the_parameters_of_the_signature():
    wrong = {}
    public = {getattr(value, "__qualname__", "") for value in (getattr(recvae, name) for name in recvae.__all__)}
    for name, value in documented().items():
        given = described(value, "Parameters", *["Attributes"] * inspect.isclass(value))
        required = value.__qualname__.split(".")[0] in public
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        bound = ("self", "cls") if "." in value.__qualname__ else ()
        parameters = [p for p in inspect.signature(value).parameters.values() if p.name not in bound]
        taken = [stars.get(p.kind, "") + p.name for p in parameters]
        if inspect.isclass(value):  # it may have more attributes, in another order
            given, taken = sorted(one for one in given if one in taken), sorted(taken)
        elif len(taken) < 2:  # a sentence may do
            required = False
        if (given or required) and given != taken:
            wrong[name] = f"docstring {given}, signature {taken}"
    assert not wrong, wrong
