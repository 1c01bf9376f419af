"""What the guide shows runs: its Python snippets and its commands, page by page, in their order."""

import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from recvae import Recommender
from recvae.cli.main import main

PAGES = [
    page
    for page in sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    if re.search("^```", page.read_text(), re.M)
]


@pytest.fixture(autouse=True)
def own_models():
    """Classes that a page makes are forgotten."""
    before = dict(Recommender.registry)
    yield
    Recommender.registry.clear()
    Recommender.registry.update(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_snippet_runs(page, briefly, capsys, monkeypatch):
    pytest.importorskip("duckdb")
    module = types.ModuleType("of_the_guide")  # models are made in it, which pickle asks for their home
    monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace = vars(module)
    for language, snippet in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(snippet, namespace)
        for command in snippet.splitlines() if language == "bash" else []:
            program, *arguments = shlex.split(command)
            assert program == "recvae"
            assert main(arguments) == 0
    # what a comment says is printed is printed
    printed = capsys.readouterr().out
    for said in re.findall(r"^print\(.*\)  # (.*[.)])$", page.read_text(), re.MULTILINE):
        assert said in printed


def test_the_first_page_ends_with_ten_items_for_everybody(briefly, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "index.md").read_text()
    (made,) = re.findall(r"```python\n(.*?write\(.*?)```", page, re.DOTALL)
    exec(made, {})
    assert Path("events.csv").read_text().startswith(re.search(r"```text\n(.*?)```", page, re.DOTALL)[1])
    (commands,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for command in commands.splitlines():
        assert main(shlex.split(command)[1:]) == 0
    top = Path("top10.csv").read_text().splitlines()
    assert top[0].replace('"', "") == "user,rank,item,score"
    assert len(top) == 1 + 10 * 3000
