"""What examples/ has runs on the embedded sample and says something true; one without a test here is an error."""

import http.server
import json
import queue
import re
import runpy
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import recvae
from tests.conftest import train_briefly

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


USERS, FILMS, EPOCHS = 1200, 300, 4


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    train_briefly(monkeypatch, EPOCHS, USERS, FILMS)


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Runs a script of examples/, as from a command line in an empty folder. -> what it prints"""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_swap_for_implicit(printed):
    pytest.importorskip("implicit")
    text = printed("swap_for_implicit.py")
    quality = dict(re.findall(r"^(\w+): NDCG@100 (0\.\d+)", text, re.M))
    assert list(quality) == ["AlternatingLeastSquares", "MultVAE"]
    assert all(float(value) > 0.4 for value in quality.values())
    assert len(re.findall(r"^    like The ", text, re.M)) == 2


def test_frames_in_and_out(printed):
    text = printed("frames_in_and_out.py")
    for line in (f"of {USERS:,} people", "from pandas to pandas", "from polars to polars", "person-0002", "next films"):
        assert line in text


def test_new_users(printed):
    text = printed("new_users.py")
    assert f"trained on {USERS - 600} users; on 300 other users" in text
    assert float(re.search(r"recall@20 (0\.\d+) ±", text)[1]) > 0.3
    lists = re.split(r"after \d films", text)[1:]
    assert [len(re.findall(r"^    \d\. The ", one, re.M)) for one in lists] == [3, 3, 3, 3]
    assert len(set(re.findall(r"^    1\. (.*)$", text, re.M))) > 1  # the history decides


def test_exploration(printed):
    text = printed("exploration.py")
    rows = [[float(number) for number in line.split()] for line in re.findall(r"^ +\d\.\d +.*\d$", text, re.M)]
    assert [row[0] for row in rows] == [0, 0.5, 1, 2, 4]
    assert rows[0][1] > 1.2 * rows[-1][1]  # hits fall
    assert 0 == rows[0][2] < rows[2][2] < rows[-1][2]  # lists move away from the plain ones
    assert len(re.findall(r"±", text)) == 5


def test_anomaly(printed):
    text = printed("anomaly.py")
    assert int(re.search(r"in (\d+)% of all pairs", text)[1]) > 80
    assert int(re.search(r"of the 15 highest scores, (\d+) are bots", text)[1]) > 7
    assert re.search(r"highest scores first:\n    score +\d+\.\d +\d+ items   bot", text)


def test_tuning(printed):
    pytest.importorskip("optuna")
    text = printed("tuning.py", "--trials", "2", "--epochs", "2")
    assert len(re.findall(r"^trial \d", text, re.M)) == 2
    assert "best of 2 trials, ndcg@100 on validation users: 0." in text
    assert len(re.findall(r"(tuned|defaults) on test users: 0\.\d+ ± ", text)) == 2


def test_onnx_endpoint(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    started = queue.Queue()

    class Server(http.server.ThreadingHTTPServer):
        def serve_forever(self):
            started.put(self)
            super().serve_forever(poll_interval=0.01)

    monkeypatch.setattr("http.server.ThreadingHTTPServer", Server)
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["onnx_endpoint.py", "--port", "0", "--out", str(tmp_path)])
    arguments = (str(EXAMPLES / "onnx_endpoint.py"), None, "__main__")
    thread = threading.Thread(target=runpy.run_path, args=arguments, daemon=True)
    thread.start()
    with started.get(timeout=100) as server:
        try:
            address = re.fullmatch(r"listening at (http://127\.0\.0\.1:\d+/)\n", capsys.readouterr().out)[1]

            def ask(request):
                with urllib.request.urlopen(address, json.dumps(request).encode(), timeout=60) as answer:
                    return json.load(answer)

            history = recvae.load_dataset("sample").item_ids[[3, 40, 200]].tolist()
            model = recvae.load(tmp_path / "films.recvae")
            ours = model.recommend_for({"ann": history}, N=10).to_pydict()
            answer = ask({"history": [*history, "an item that nobody knows"], "N": 10})
            assert [row["item"] for row in answer] == ours["item"]
            assert [row["score"] for row in answer] == pytest.approx(ours["score"], abs=1e-4)
            assert len(ask({"history": [], "N": 3})) == 3
            with pytest.raises(urllib.error.HTTPError, match="400"):
                ask({"films": []})
        finally:
            server.shutdown()
            thread.join(10)


def test_tour(monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    import nbformat

    start = tmp_path / "profile_default" / "startup" / "sample.py"
    start.parent.mkdir(parents=True)
    start.write_text(
        f"import pytest, tests.conftest as c; c.train_briefly(pytest.MonkeyPatch(), {EPOCHS}, {USERS}, {FILMS})"
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # of the kernel
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none are committed
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    training, curves = code[1].outputs, code[2].outputs
    live = [output.data["text/plain"] for output in training if output.output_type == "display_data"]
    assert len(live) == 1  # drawn again and again, and there once
    for shown in (
        f"MultVAE, epoch {EPOCHS}/{EPOCHS}",
        "users/s",
        "reconstruction",
        "KL",
        "beta",
        "ndcg@100",
        "best 0.",
    ):
        assert shown in live[0]
    assert [output.output_type for output in training] == ["display_data", "stream"]  # the latter is what it prints
    assert "image/png" in curves[-1].data
    assert "ndcg@100  0." in code[3].outputs[0].text


TESTED = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_example_is_tested_listed_and_short(path):
    assert path.stem in TESTED
    page = (ROOT / "docs" / "examples.md").read_text()
    assert f"[{path.name}](../examples/{path.name})" in page
    if path.suffix == ".py":
        assert len(path.read_text().splitlines()) <= 60
