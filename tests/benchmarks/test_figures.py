"""The pictures: each can be drawn from what is recorded, and the committed ones are of these results."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.pages.figures import FIGURES, FOLDER, draw_figures
from benchmarks.pages.figures.family import label_sides
from benchmarks.pages.fill import pages
from benchmarks.pages.tables import RESULTS


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_figures(RESULTS, tmp_path_factory.mktemp("figures"))


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def places(path):
    """Where markers stand, to a tenth of a point: fonts differ between machines, what is plotted does not."""
    return [round(float(place), 1) for place in re.findall(r'<use [^>]*?x="([\d.]+)"', path.read_text())]


def test_each_is_small_asks_for_nothing_and_is_shown(drawn):
    guide = "\n".join(page.read_text() for page in pages())
    for path in drawn:
        assert path.stat().st_size < 150_000
        svg = re.sub(r"http://(www\.w3\.org|purl\.org|creativecommons\.org)[^\"]*", "", path.read_text())
        assert "http" not in svg
        assert f"figures/{path.name}" in guide
    assert {path.name for path in drawn} == {path.name for path in FOLDER.glob("*.svg")}


@pytest.mark.parametrize("name", FIGURES)
def test_the_committed_pictures_are_those_of_the_recorded_results(drawn, name):
    (new,) = (path for path in drawn if path.stem == name)
    assert texts(FOLDER / f"{name}.svg") == texts(new)
    assert len(places(FOLDER / f"{name}.svg")) == len(places(new)) > 0


def test_another_result_is_another_picture(drawn, tmp_path):
    for source in {source for source, _ in FIGURES.values()}:
        (tmp_path / f"{source}.json").write_text((RESULTS / f"{source}.json").read_text())
    family = tmp_path / "family-ml-1m.json"
    family.write_text(family.read_text().replace('"model": "EASE"', '"model": "LMF"'))
    folder = tmp_path / "figures"
    folder.mkdir()
    draw_figures(tmp_path, folder)
    assert texts(folder / "family-ml-1m.svg") != texts(FOLDER / "family-ml-1m.svg")


def test_labels_keep_off_dots_and_each_other():
    alone, other = label_sides(["EASE", "ALS"], [(0.0, 0.0), (0.0, 100.0)])
    assert alone == other == ((7, 0), "left")
    above, below = label_sides(["EDLAE", "EASE"], [(0.0, 3.0), (0.0, 0.0)])
    assert above != below
    assert label_sides(["EASE", "ALS"], [(0.0, 0.0), (20.0, 0.0)])[0] == ((-7, 0), "right")  # a dot is in the way
    assert label_sides(["A"] * 3, [(0.0, 0.0), (14.0, 0.0), (-14.0, 0.0)])[0] == ((0, 12), "center")


def test_the_folder_of_pictures_is_that_of_the_guide():
    assert Path(__file__).parents[2] / "docs" / "figures" == FOLDER
