"""What the guide shows runs: its Python snippets and its commands, page by page, in their order."""

import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from recvae import Recommender
from recvae.cli.main import main
from tests.conftest import train_briefly

PAGES = [
    page
    for page in sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    if re.search("^```", page.read_text(), re.M)
]

WHOLE = ("growing", "index", "shards")  # pages that count the users of the sample


@pytest.fixture(autouse=True)
def own_models():
    """Classes that a page makes are forgotten."""
    before = dict(Recommender.registry)
    yield
    Recommender.registry.clear()
    Recommender.registry.update(before)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs the snippets of a page, with fewer epochs, and fewer users where it does not count them."""

    def run_page(page):
        pytest.importorskip("duckdb")
        monkeypatch.setattr("recvae.benchmark.inspection.MAPPED", 120)  # items on the map of a report
        monkeypatch.chdir(tmp_path)
        n_users = 3000 if page.stem in WHOLE else 1500
        train_briefly(monkeypatch, 2 if page.stem == "training" else 1, n_users, 600)  # that one stops in the second
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

    return run_page


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_each_snippet_runs(page, run):
    run(page)


def test_the_first_page_runs_and_ends_with_ten_items_for_everybody(run):
    (page,) = [page for page in PAGES if page.stem == "index"]
    run(page)
    shown = re.search(r"```text\n(.*?)```", page.read_text(), re.DOTALL)[1]
    assert Path("events.csv").read_text().startswith(shown)
    top = Path("top10.csv").read_text().splitlines()
    assert top[0].replace('"', "") == "user,rank,item,score"
    assert len(top) == 1 + 10 * 3000
