"""The file of results: what is refused, in a sentence."""

import json

import pytest

from recvae.benchmark.results import FORMAT, check_results, json_bytes, number, read_results, results_frame
from recvae.errors import InvalidDataError

LEAST = {
    "format": FORMAT,
    "settings": {"metrics": ["ndcg@100"]},
    "models": [{"model": "EASE", "metrics": {"ndcg@100": {"mean": 0.4, "stderr": 0.01}}}],
}


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "results.json").write_bytes(json_bytes(LEAST | {"absent": float("nan")}))
    assert read_results(tmp_path / "results.json") == LEAST | {"absent": None}


def test_what_is_no_number_is_null_in_json():
    assert json.loads(json_bytes({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}
    assert [number(value) for value in (None, "1", True, float("nan"), 10**400, 2)] == [None] * 5 + [2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json_bytes(LEAST)[:-30], "cut or damaged"),
        (b"\xff\xfe", "cut or damaged"),
        (b"", "cut or damaged"),
        (b"[" * 10**5, "cut or damaged"),
        (b'{"format":' * 10**5, "cut or damaged"),
        (b"9" * 5000, "cut or damaged"),
        (json_bytes(LEAST | {"title": "\ud800"}), "cut or damaged"),
        (json_bytes(LEAST | {"format": 10**400}), r"got format 1000\d+\.\.\.; run"),
        (json_bytes(LEAST | {"settings": {"metrics": ["a\n" * 99, 1]}}), "names of metrics"),
        (json_bytes(LEAST | {"models": [{"model": "x", "metrics": {"ndcg@100": {"mean": 10**400}}}]}), "got none"),
        (b"[1, 2]", "got other JSON"),
        (b'{"format": true}', "got other JSON"),
        (json_bytes(LEAST | {"format": 1}), "of format 2 to 4 in .*, got format 1; run the benchmark again"),
        (json_bytes(LEAST | {"format": 99}), "got format 99"),
        (json_bytes(LEAST | {"settings": {}}), "names of metrics in the settings of .*, got None"),
        (json_bytes(LEAST | {"models": []}), "a model with ndcg@100 in .*, got none"),
        (json_bytes(LEAST | {"models": [{"model": "EASE", "metrics": {"ndcg@100": {"mean": None}}}]}), "got none"),
        (json_bytes(LEAST | {"models": {"EASE": 1}}), "got none"),
        (json_bytes(LEAST | {"models": [7, None]}), "got none"),
    ],
)
def test_what_is_no_results_is_refused_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDataError, match=message) as said:
        read_results(path)
    assert str(said.value).isprintable()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidDataError, match="Expected a file of results"):
        read_results(tmp_path / "none.json")
    with pytest.raises(InvalidDataError, match="Expected a file of results"):
        read_results(tmp_path)
    check_results(LEAST)


def test_results_are_a_frame(results):
    table = results_frame(results).to_pylist()
    expected = [(row["model"], metric) for row in results["models"] for metric in row["metrics"]]
    assert [(row["model"], row["metric"]) for row in table] == expected
    for row in table:
        model = next(one for one in results["models"] if one["model"] == row["model"])
        assert {"mean": row["mean"], "stderr": row["stderr"]} == model["metrics"][row["metric"]]
    assert results_frame(results, "pandas")["model"].nunique() == len(results["models"])
    with pytest.raises(InvalidDataError, match="benchmark"):
        results_frame({"models": []})
