import json
import re
from pathlib import Path

import pytest

from benchmarks.table import (
    RESULTS,
    joins_table,
    published_table,
    reference_table,
    results_page,
    results_table,
    speed_tables,
)
from recvae.cli import main
from recvae.sample import make_sample

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_each_snippet_runs(briefly, capsys):
    namespace: dict = {}
    for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(snippet, namespace)
    printed = capsys.readouterr().out
    assert 0.3 < float(printed.split()[0]) < 0.7
    assert "Interactions(2 users x 1 items, 2 events, values='binary')" in printed


def test_the_commands_for_one_s_own_file_run(tmp_path, monkeypatch, capsys):
    cells = make_sample(400, 60).interactions.matrix.tocoo()
    rows = zip(cells.row, cells.col, strict=True)
    (tmp_path / "events.csv").write_text("who,film\n" + "".join(f"{user},{item}\n" for user, item in rows))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    recvae (.*)$", README, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "evaluate", "recommend"]
    for command in commands:
        assert main([*command.split(), *(["--param", "epochs=3"] if command.startswith("train") else [])]) == 0
    assert "ndcg@100" in capsys.readouterr().out
    top = (tmp_path / "top10.csv").read_text().splitlines()
    assert len(top) == 1 + 10 * 400


def test_the_table_is_that_of_the_recorded_results():
    for table in (results_table(), published_table(), reference_table(), *speed_tables()[:3]):
        assert table in README
    assert (RESULTS / "README.md").read_text() == results_page() + "\n"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_results_pass_no_data_on(path):
    results = json.loads(path.read_text())
    assert path.stem == "sample" or not results.get("examples")


def test_the_log_of_joins_has_the_recorded_figures():
    assert joins_table() in (ROOT / "docs" / "hybrid.md").read_text()


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists()


@pytest.mark.parametrize("command", ["benchmark", "test"])
def test_the_two_commands_are_in_the_makefile(command):
    assert f"    make {command} " in README
    assert f"\n{command}:" in (ROOT / "Makefile").read_text()
