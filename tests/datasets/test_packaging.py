"""The cards of data sets come with the package, in whichever way it is had: checkout, archive, sdist, wheel."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from recvae.datasets.card import known_cards

ROOT = Path(__file__).parents[2]
CARDS = "import json, recvae.datasets.card as c; print(json.dumps({n: c.load_card(n).title for n in c.known_cards()}))"


def cards_of(folder: Path) -> dict[str, str]:
    """The cards that a package in `folder` has, read by a process that sees no other copy of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {CARDS}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def build(source: Path, kind: str, out: Path) -> Path:
    """Build a wheel or an sdist as `python -m build --no-isolation` does: by hatchling, without a network."""
    command = f"from hatchling.build import build_{kind}; print(build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", command], cwd=source, capture_output=True, text=True, check=True)
    return out / done.stdout.splitlines()[-1]


def extracted(archive: Path, folder: Path) -> Path:
    """The content of a wheel or a tar file. -> the folder of the package"""
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
        return folder
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    (top,) = [path for path in folder.iterdir() if path.is_dir()]
    return top


@pytest.fixture(scope="module")
def titles():
    return cards_of(ROOT)


def test_a_checkout_has_the_cards(titles):
    assert list(titles) == known_cards()
    assert len(titles) == len(list((ROOT / "datasets").glob("*.toml"))) > 10


def test_an_archive_of_the_tree_has_the_cards(tmp_path, titles):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    subprocess.run(["git", "archive", "--prefix=tree/", f"--output={tmp_path / 'a.tar'}", "HEAD"], cwd=ROOT, check=True)
    assert set(cards_of(extracted(tmp_path / "a.tar", tmp_path / "x"))) <= set(titles)


def test_wheel_sdist_and_a_wheel_of_the_sdist_have_the_cards(tmp_path, titles):
    pytest.importorskip("hatchling")
    wheel, sdist = build(ROOT, "wheel", tmp_path), build(ROOT, "sdist", tmp_path)
    source = extracted(sdist, tmp_path / "sdist")
    of_sdist = build(source, "wheel", tmp_path / "again")
    names = [set(zipfile.ZipFile(path).namelist()) for path in (wheel, of_sdist)]
    assert names[0] == names[1]
    assert {name for name in names[0] if name.endswith(".toml")} == {f"recvae/datasets/cards/{n}.toml" for n in titles}
    for folder in (extracted(wheel, tmp_path / "wheel"), source, extracted(of_sdist, tmp_path / "wheel of sdist")):
        assert cards_of(folder) == titles
