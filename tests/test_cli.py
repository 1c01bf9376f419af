import json
import subprocess
import sys

import pytest

from recvae import __version__, cli
from recvae.cli import main


def test_benchmark_prints_the_table_and_writes_the_results(tmp_path, capsys):
    out = tmp_path / "new" / "results.json"
    assert main(["benchmark", "--models", "itemknn,Popularity", "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("ItemKNN", "Popularity", "oracle", "ndcg@100", "of 6 settings", "top 10", "history"):
        assert word in printed
    results = json.loads(out.read_text())
    assert [row["model"] for row in results["models"]] == ["ItemKNN", "Popularity", "oracle"]
    knn, popularity, oracle = ({n: m["mean"] for n, m in row["metrics"].items()} for row in results["models"])
    assert oracle["ndcg@100"] > knn["ndcg@100"] > popularity["ndcg@100"]
    assert results["models"][1]["paired_test"]["against"] == "ItemKNN"
    assert results["models"][1]["paired_test"]["p_value"] < 0.001
    assert results["models"][0]["peak_memory_mib"] > 10
    assert results["settings"]["test_users"] == 400
    assert results["versions"]["recvae"] == __version__
    example = results["examples"][0]
    assert len(example["recommended"]["ItemKNN"]) == 10
    assert not set(example["recommended"]["ItemKNN"]) & set(example["history"])
    assert [path.name for path in out.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "ml-2m"], "no data set called 'ml-2m'; did you mean"),
        (["--models", "MultVEA"], "no model called 'MultVEA'; did you mean MultVAE"),
        (["--seeds", "0"], "Expected --seeds to be a whole number of at least 1, got 0"),
        (["--out", "/proc/nowhere/results.json"], "Expected --out to be a file that can be written"),
        (["--split-seed", "-1"], "Expected seed to be a whole number from 0 to 4294967295, got -1"),
        (["--out", "/dev/null"], "it is there and no file"),
        (["--out", "/"], "Expected --out to be a file that can be written"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_status_2(arguments, message, capsys):
    assert main(["benchmark", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_what_is_no_number_is_null_in_json(tmp_path):
    out = tmp_path / "results.json"
    cli._write_json(out, {"a": [float("nan"), float("inf"), 1.5]})
    assert json.loads(out.read_text()) == {"a": [None, None, 1.5]}
    link = tmp_path / "link.json"
    link.symlink_to(out)
    cli._write_json(link, {})
    assert link.is_symlink()
    assert out.read_text() == "{}\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as done:
        main(["benchmark", "--help"])
    assert done.value.code == 0
    assert "Example: recvae benchmark --dataset ml-1m" in capsys.readouterr().out


def test_as_a_module_and_quiet_where_there_is_no_terminal():
    command = [sys.executable, "-m", "recvae", "benchmark", "--models", "Popularity"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Popularity" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stderr


def test_importing_is_silent_and_leaves_global_state_alone():
    code = (
        "import torch, numpy; a = torch.random.get_rng_state(); b = numpy.random.get_state()[1].copy(); import recvae; "
        "assert torch.equal(a, torch.random.get_rng_state()); assert (b == numpy.random.get_state()[1]).all()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == done.stderr == ""
