"""What the benchmarks of services, signals and pairs measure: small runs, and that each notices what is wrong."""

import json

import pytest

import benchmarks.scale.service as service
from benchmarks.scale.signals import OLDER, Command, _left, _wrong_end, _wrong_output, run_signals, signals_table
from benchmarks.speed.paired import MEASURE, _measure, _summary, paired_table, run_paired
from recvae import EASE
from recvae.models.baselines import ALS

MODELS = ("MultVAE", "EASE")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A data set of 210 users and 60 items, by the file of its card."""
    folder = tmp_path_factory.mktemp("data")
    lines = [f"{user},{(user * 7 + n * n) % 60}" for user in range(210) for n in range(1, 9)]
    (folder / "events.csv").write_text("\n".join(["user,item", *lines]))
    text = 'name = "x"\ntitle = "x"\npath = "events.csv"\n[protocol]\nheldout_users = 20\n'
    text += '[events]\ncolumns = ["user", "item"]\nheader = true\n'
    (folder / "card.toml").write_text(text)
    return str(folder / "card.toml")


def test_a_service_answers_as_its_parent_did(card, monkeypatch):
    monkeypatch.setattr(service, "MODELS", {"EASE": EASE(), "ALS": ALS(factors=8, iterations=1, random_state=0)})
    monkeypatch.setattr(service, "WORKERS", 2)
    monkeypatch.setattr(service, "THREADS", 2)
    found = service.run_service(100, dataset=card)
    assert (found["failed"], found["other_lists"]) == (0, 0)
    assert [mark["requests"] for mark in found["marks"]] == list(range(10, 101, 10))
    assert len(found["marks"][0]["rss_mib"]) == len(found["marks"][0]["warnings_kept"]) == 2


@pytest.mark.parametrize("grows", ["rss_mib", "log_bytes", "warnings_kept"])
def test_a_service_that_grows_is_seen(grows):
    mark = {"rss_mib": [200.0, 300.0], "log_bytes": 70, "warnings_kept": [1, 2]}
    more = {"rss_mib": [200.0, 330.0], "log_bytes": 71, "warnings_kept": [1, 3]}
    assert service._is_constant([mark, mark | {"rss_mib": [209.0, 301.0]}])
    assert not service._is_constant([mark, mark | {grows: more[grows]}])


# takes .3 s of a CPU, has a file for a while, and ends as it should at SIGINT, but not at SIGTERM
PROGRAM = """
import os, pathlib, signal, sys, time
def end(number, frame):
    os.write(2, b"recvae: stopped.\\n")
    pathlib.Path("tmp/x").unlink(missing_ok=True)
    os._exit(128 + number)
signal.signal(signal.SIGINT, end)
pathlib.Path("tmp/x").touch()
os.write(int(os.environ["STARTED"]), b"x")
while time.process_time() < .3:
    pass
pathlib.Path("top.csv").write_text("new")
pathlib.Path("tmp/x").unlink()
"""


def test_signals_are_sent_and_a_stopped_command_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.scale.signals.START", PROGRAM)
    monkeypatch.setattr("benchmarks.scale.signals._inputs", lambda folder: folder)
    out = tmp_path / "signals.json"

    def save(results):
        out.write_text(json.dumps(results))

    found = run_signals(1, out, save, ["recommend, a file"], each=True)
    killed, interrupted, terminated = found["cases"]
    assert killed["wrong"] == interrupted["wrong"] == []
    assert terminated["over"] or len(terminated["wrong"]) == 3  # its status, no sentence, a file that is left
    assert found["wrong"] == (not terminated["over"])
    assert run_signals(0, out, save, [])["cases"] == found["cases"]  # what was done stays
    assert "1 of 1" in signals_table(found)


def test_what_a_stopped_command_does_wrong_is_seen(tmp_path):
    right = {"signal": "INT", "status": 130, "over": False, "said": "recvae: stopped.\n", "left": []}
    assert _wrong_end(right, 130) == []
    for change in ({"status": -2}, {"said": ""}, {"said": "Traceback ...\nrecvae: x\n"}, {"left": ["tmp/x"]}):
        assert len(_wrong_end(right | change, 130)) == 1
    file = Command("", "top.csv", again=False)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "top.csv").write_bytes(OLDER)
    assert (_wrong_output(file, tmp_path), _left(tmp_path)) == ([], [])
    (tmp_path / "top.csv").write_bytes(OLDER[:-1])
    (tmp_path / "tmp" / "x").touch()
    (tmp_path / ".top.csv-1").touch()
    assert len(_wrong_output(file, tmp_path)) == 1
    assert _left(tmp_path) == [".top.csv-1", "tmp/x"]
    assert _left(tmp_path, "KILL") == []


def test_what_is_measured_of_a_checkout(card, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", card, "", "1", "1", str(tmp_path / "model")])
    exec(MEASURE, {})
    found = json.loads(capsys.readouterr().out)
    assert set(found["seconds"]) >= {"fit MultVAE", "fit EASE", "recommend EASE", "load MultVAE"}
    assert set(found["digests"]) == {f"{what} of {name}" for what in ("lists", "scores", "file") for name in MODELS}


def test_two_checkouts_in_turns(tmp_path, monkeypatch):
    script = "import json, os; print(json.dumps({'from': os.environ['PYTHONPATH'] + '/x', 'seconds': {'fit': 1.0 + len("
    script += "os.environ['PYTHONPATH'].split('slow')) / 10}, 'digests': {'file': '1', 'lists': os.getcwd()}}))"
    monkeypatch.setattr("benchmarks.speed.paired.MEASURE", script)
    saved = []
    results = run_paired(tmp_path / "fast", tmp_path / "slow", 3, 1, saved.append)
    assert [one["first"] for one in results["rounds"]] == ["before", "after", "before"]
    assert len(saved) == 3
    assert results["slower"] == ["fit"]
    assert results["seconds"]["fit"]["ratio"] == pytest.approx(1.2 / 1.1)
    assert results["same"] == {"file": True, "lists": True}
    assert "| fit | 1.100 | 1.200 | 1.091 |" in paired_table(results)
    monkeypatch.setattr("benchmarks.speed.paired.MEASURE", 'print(\'{"from": "/elsewhere"}\')')
    with pytest.raises(SystemExit, match="imported from elsewhere"):
        _measure(tmp_path, [], 1, str(tmp_path))


def test_what_is_not_the_same_is_seen():
    one = {"seconds": {"fit": 1.0}, "digests": {"file": "1"}}
    assert _summary([{"before": one, "after": one}])["same"] == {"file": True}
    assert _summary([{"before": one, "after": one | {"digests": {"file": "2"}}}])["same"] == {"file": False}
