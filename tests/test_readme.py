import json
import re
from pathlib import Path

import pytest

from benchmarks.pages.tables import RESULTS, results_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)]+)\)")


def anchors(page):
    """What GitHub and the site make of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"[^\w\- ]", "", line).strip().lower() for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {heading.replace(" ", "-") for heading in headings}


def test_it_is_short():
    assert len(README.splitlines()) <= 130


def test_each_snippet_runs(briefly, capsys):
    namespace: dict = {}
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(snippet, namespace)
    assert 0.3 < float(capsys.readouterr().out.split()[0]) < 0.7


def test_the_page_of_results_is_that_of_the_recorded_results():
    assert (RESULTS / "README.md").read_text() == results_page() + "\n"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_results_pass_no_data_on(path):
    results = json.loads(path.read_text())
    assert path.stem == "sample" or not results.get("examples")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT).with_suffix("")))
def test_links_lead_somewhere(path):
    for target in LINK.findall(path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_anchors_are_those_of_github(tmp_path):
    (tmp_path / "a.md").write_text("# Who, and `what_it`?\n```sh\n# no heading\n```\n## Beside a textbook\n")
    assert anchors(tmp_path / "a.md") == {"who-and-what_it", "beside-a-textbook"}


def test_the_layout_names_what_is_there():
    package, text = ROOT / "recvae", (ROOT / "docs" / "layout.md").read_text()
    rooms = {path.name for path in package.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert rooms <= {name.split("/")[0] for name in re.findall(r"`([\w/]+/)`", text)}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any((folder / name).exists() for folder in (package, ROOT)), name


@pytest.mark.parametrize("command", ["benchmark", "test"])
def test_the_two_commands_are_in_the_makefile(command):
    assert f"    make {command} " in README
    assert f"\n{command}:" in (ROOT / "Makefile").read_text()
