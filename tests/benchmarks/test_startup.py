"""The benchmark of start-up: what it counts as the size of an environment, and its tables."""

import subprocess
import sys

import pytest

from benchmarks.speed import startup
from recvae.errors import InvalidParameterError


def test_the_size_of_an_environment_is_that_of_its_files(tmp_path):
    site = tmp_path / "lib" / "python3.99" / "site-packages"
    for name, size in (("small", 1 << 12), ("large", 1 << 20)):
        (site / name).mkdir(parents=True)
        (site / name / "a.py").write_bytes(b"#" * size)
        info = site / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "RECORD").write_text(f"{name}/a.py,,\n{name}/gone.py,,\n")
    before = startup.sizes(tmp_path)
    assert list(before["largest"]) == ["large", "small"]
    assert before["largest"] == {"large": 1 << 20, "small": 1 << 12}
    assert before["bytes"] > (1 << 20) + (1 << 12)
    compiled = site / "small" / "__pycache__" / f"a.{sys.implementation.cache_tag}.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"#" * (1 << 21))  # modules count in both forms
    after = startup.sizes(tmp_path)
    assert after["largest"] == {"small": (1 << 12) + (1 << 21), "large": 1 << 20}
    assert after["bytes"] == before["bytes"] + (1 << 21)
    assert "| small | 2 |" in startup.installation_table({"installation": after})


def test_a_folder_without_packages_is_refused(tmp_path):
    with pytest.raises(InvalidParameterError, match="Expected a virtual environment"):
        startup.sizes(tmp_path)


def test_commands_are_compared_with_an_empty_python_in_the_same_round(monkeypatch):
    seconds = iter([9.0, *[0.1, 0.2, 0.1, 0.4, 0.1]])  # the first round is not counted
    monkeypatch.setattr(startup, "COMMANDS", {"python": (), "other": ()})
    monkeypatch.setattr(startup, "_write_inputs", lambda folder: None)

    def one_round(folder):
        empty = next(seconds)
        return {"python": (empty, empty / 2), "other": (3 * empty, empty)}

    monkeypatch.setattr(startup, "_round", one_round)
    saved = []
    results = startup.run_startup(5, None, saved.append)
    assert saved == [results]
    assert results["cases"]["other"]["ratio"] == pytest.approx(3)
    assert results["cases"]["python"] == pytest.approx({"wall_s": 0.1, "cpu_s": 0.05, "ratio": 1})
    assert "| `other` | 0.30 | 0.10 | 3.0 |" in startup.show(results)
    with pytest.raises(InvalidParameterError, match="at least 5 rounds"):
        startup.run_startup(4, None, saved.append)


def test_each_command_runs(tmp_path):
    startup._write_inputs(tmp_path)
    for arguments in startup.COMMANDS.values():
        command = [sys.executable, *(argument.replace("FOLDER", str(tmp_path)) for argument in arguments)]
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "top10.csv").stat().st_size
