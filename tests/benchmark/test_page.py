"""The page of results: what is on it, and what it makes of results that lack something."""

import copy
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from recvae.benchmark.report import page, view, write_page
from recvae.benchmark.results import json_bytes
from recvae.cli.main import main
from recvae.errors import MissingDependencyError

FIXTURES = Path(__file__).parents[1] / "fixtures"
PARTS = ["models", "cost", "length", "activity", "popularity", "lists", "people", "items"]
PARTS += ["learning", "latent", "memory", "made"]


class Outline(HTMLParser):
    """Ids, parts that are missing, addresses, and all text outside of scripts."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.missing, self.addresses, self.text = [], [], [], []
        self._in, self._part, self._missing = "", "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._in = tag
        self._missing = attrs.get("class") == "missing"
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.addresses += [attrs[name] for name in ("href", "src", "srcset", "action") if name in attrs]
        if attrs.get("class") == "part":
            self._part = attrs["id"]
        if self._missing and self._part:
            self.missing.append(self._part)

    def handle_data(self, data):
        if self._in not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """No need for the whole of Vega in each of these pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_bundle", lambda: "/* Vega */")
        yield


@pytest.fixture(scope="module")
def html(quickly, results, tmp_path_factory):
    """The page of whole results."""
    return write_page(results, tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


def outline(results, folder):
    return Outline(write_page(results, folder).read_text(encoding="utf-8"))


def test_models_with_settings_of_the_sample_are_named(results, html, tmp_path):
    sized = results | {"settings": results["settings"] | {"sized_for_sample": ["RecVAE", "HVamp"]}}
    note = "RecVAE and HVamp: settings for the size of the sample instead of the defaults"
    texts = [" ".join(" ".join(found.text).split()) for found in (outline(sized, tmp_path), Outline(html))]
    assert [note in text for text in texts] == [True, False]


def test_all_parts_are_there(results, html):
    found = Outline(html)
    assert [name for name in found.ids if name in PARTS] == PARTS
    assert found.missing == []
    text = " ".join(" ".join(found.text).split())
    assert results["command"] in text
    assert results["versions"]["torch"] in text
    example = results["examples"][0]
    for title in example["history"] + example["recommended"]["MultVAE"]:
        assert title.partition(" [")[0] in text
    best = max(results["models"][:-1], key=lambda row: row["metrics"]["ndcg@100"]["mean"])
    assert f"{best['model']} ranks best, NDCG@100 {best['metrics']['ndcg@100']['mean']:.4f}" in text


def test_nothing_is_fetched(html):
    found = Outline(html)
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    assert "url(" not in (Path(page.__file__).parent / "page.css").read_text()


def test_each_chart_has_words_and_a_table(html):
    figures = re.findall(r'<figure id="chart-.*?</figure>', html, re.DOTALL)
    assert len(figures) == 15
    for figure in figures:
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
        assert re.search(r'<p class="read">[^<]{40,}</p>', figure)
        assert figure.count("<tbody>") == 1
        assert figure.count("<td>") > 0


def test_specs_are_what_vega_lite_takes(html):
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    specs = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    for spec in map(json.loads, specs):
        assert vl_convert.vegalite_to_vega(spec, vl_version=version)["marks"]


def test_titles_are_text_and_no_markup(results, tmp_path):
    evil = "</script><script>alert(1)</script><img src=x>"
    bad = copy.deepcopy(results)
    bad["item_map"]["title"][0] = evil
    bad["examples"][0]["history"][0] = evil
    bad["command"] = bad["dataset"] = bad["title"] = evil
    bad["models"][0]["model"] = evil
    html = write_page(bad, tmp_path).read_text(encoding="utf-8")
    assert "alert(1)" in html
    assert "<script>alert" not in html
    assert "<img" not in html


def test_without_examples_no_item_is_named(results, tmp_path):
    private = results | {"examples": [], "item_map": None}
    found = outline(private, tmp_path)
    assert found.missing == ["people", "items"]
    text = " ".join(found.text)
    assert "--examples 0" in text
    assert not any(title in text for title in results["item_map"]["title"])


def test_one_model_alone(results, tmp_path):
    alone = results | {"models": results["models"][:1], "best_baseline": None}
    found = outline(alone, tmp_path)
    assert found.missing == []
    assert "MultVAE alone was measured" in " ".join(found.text)
    closed = results | {"models": [row for row in results["models"] if row["model"] == "EASE"], "best_baseline": "EASE"}
    assert outline(closed, tmp_path).missing == ["learning", "latent"]


def test_older_files_make_a_page_that_says_what_is_missing(results, tmp_path):
    three = copy.deepcopy(results) | {"format": 3}
    for key in ("groups", "item_map", "command", "title"):
        del three[key]
    for row in three["models"]:
        for key in ("recall_curve", "by_activity", "by_popularity", "listed", "active_units", "best_epoch"):
            row.pop(key, None)
    for example in three["examples"]:
        del example["why"]
    found = outline(three, tmp_path)
    assert found.missing == ["length", "activity", "popularity", "items", "latent", "made"]
    oldest = json.loads((FIXTURES / "results-2.json").read_text())
    found = outline(oldest, tmp_path)
    assert set(found.missing) == {"length", "activity", "popularity", "people", "items", "latent", "made"}
    assert "Published on this protocol: SLIM" in " ".join(found.text)


def test_numbers_that_are_none_leave_gaps(results, tmp_path):
    gaps = copy.deepcopy(results)
    for row in gaps["models"]:
        row["metrics"]["recall@20"] = {"mean": None, "stderr": None}
        row["metrics"]["ndcg@100"]["stderr"] = None
        row["by_popularity"][0] = {"mean": None, "stderr": None}
        row["lists"]["novelty"] = None
    for row in gaps["models"][:-1]:
        row["fit_seconds"] = None
        for test in row["paired_tests"].values():
            test["low"] = test["p_value"] = None
    gaps["models"][0]["history"][0]["nll"] = gaps["item_map"]["x"][0] = None
    html = write_page(gaps, tmp_path).read_text(encoding="utf-8")
    assert Outline(html).missing == ["cost"]
    assert "nan" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).lower().split()


@pytest.mark.parametrize("wrong", [7, "x", [None], {"x": None}], ids=str)
def test_what_is_damaged_costs_its_part_and_not_the_page(results, tmp_path, wrong):
    def damaged(value, *kept):
        return {key: part if key in kept else wrong for key, part in value.items()}

    rows = [damaged(row, "model", "metrics") for row in results["models"]]
    parts = {"examples": [damaged(results["examples"][0])], "item_map": damaged(results["item_map"])}
    for case, missing in (
        (damaged(results, "format", "settings", "models"), {"activity", "popularity", "people", "items"}),
        (results | {"models": rows}, {"length", "activity", "popularity", "learning", "latent"}),
        (results | {"settings": damaged(results["settings"], "metrics")} | parts, {"people", "items"}),
    ):
        found = outline(case, tmp_path)
        assert [name for name in found.ids if name in PARTS] == PARTS
        assert missing <= set(found.missing)


def test_looks_are_never_the_same():
    looks = [view.look("", place) for place in range(24)]
    assert len({(each.colour, each.shape) for each in looks}) == 24
    assert len({(look.colour, look.dash) for look in looks}) == 24


def test_the_commands(results, tmp_path, capsys):
    (tmp_path / "results.json").write_bytes(json_bytes(results))
    assert main(["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "new" / "page")]) == 0
    assert "Page written to" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new" / "page").iterdir()] == ["index.html"]
    command = ["benchmark", "--models", "Popularity", "--examples", "1", "--report", str(tmp_path / "a b")]
    assert main(command) == 0
    assert capsys.readouterr().err.rstrip().endswith("index.html")
    written = json.loads((tmp_path / "a b" / "results.json").read_text())
    assert written["command"] == f"recvae benchmark --models Popularity --examples 1 --report '{tmp_path}/a b'"
    assert written["command"].replace("'", "&#39;") in (tmp_path / "a b" / "index.html").read_text()


def test_what_cannot_be_done_is_a_sentence(results, tmp_path, capsys, monkeypatch):
    (tmp_path / "index.html").write_bytes(json_bytes(results))
    (tmp_path / "cut.json").write_bytes(json_bytes(results)[:-100])
    (tmp_path / "results.json").write_text("examples = 1\n")
    for arguments, message in (
        (["report", str(tmp_path / "index.html"), "--out", str(tmp_path)], "than those that are read"),
        (["report", str(tmp_path / "cut.json"), "--out", str(tmp_path / "new")], "cut or damaged"),
        (["report", str(tmp_path / "none.json"), "--out", str(tmp_path / "new")], "Expected a file of results"),
        (["report", "--out", str(tmp_path)], "Expected results for recvae report"),
        (["report", str(tmp_path / "index.html"), "--out", "/proc/nowhere"], "can be written"),
        (
            ["benchmark", "--config", str(tmp_path / "results.json"), "--report", str(tmp_path)],
            "than those that are read",
        ),
    ):
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "recvae\[report\]"'):
        write_page(results, tmp_path)
    assert main(["benchmark", "--report", str(tmp_path / "new")]) == 2  # before any training
    assert "recvae[report]" in capsys.readouterr().err
