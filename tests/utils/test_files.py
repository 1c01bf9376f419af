import io
import os
import stat
from pathlib import Path

import pytest

import recvae
from recvae.benchmark.results import read_results
from recvae.data.shards import Shards, write_shards
from recvae.datasets.sample import make_sample
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    OutputError,
    RecvaeError,
    one_line,
)
from recvae.serving.export import export_numpy
from recvae.training.callbacks import JsonLines, TensorBoard
from recvae.utils.files import append_line, check_writable, write_whole
from recvae.utils.paths import as_path, check_apart, input_path, output_path


def test_a_file_is_replaced_as_a_whole_and_a_link_stays_a_link(tmp_path):
    out, link = tmp_path / "new" / "file", tmp_path / "link"
    write_whole(out, b"one")
    link.symlink_to(out)
    write_whole(link, b"two")
    assert link.is_symlink()
    assert out.read_bytes() == b"two"
    assert [path.name for path in out.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["/dev/null", "/", "/proc/nowhere/file"])
def test_what_cannot_be_written_is_a_sentence(path, tmp_path):
    with pytest.raises(OutputError, match=f"a file that can be written, got {path}: "):
        write_whole(tmp_path / path, b"")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "file"
    write_whole(out, b"old")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_whole(out, b"new")
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(mode, tmp_path):
    out, link = tmp_path / "file", tmp_path / "link"
    out.write_bytes(b"old")
    out.chmod(mode)
    link.symlink_to(out)
    for path in (out, link):
        write_whole(path, b"new")
        assert stat.S_IMODE(out.stat().st_mode) == mode
    write_whole(tmp_path / "fresh", b"")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("name", ["x" * 255, "x" * 250 + ".csv", "é" * 127])
def test_names_may_be_as_long_as_the_file_system_has_them(name, tmp_path):
    check_writable(tmp_path / name)
    write_whole(tmp_path / name, b"one")
    write_whole(tmp_path / name, b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"two")]


def test_no_new_folder_is_left_where_nothing_was_written(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b" / "file"
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    append_line(path, "{}")
    assert path.read_text() == "{}\n"

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_whole(tmp_path / "c" / "d" / "file", b"new")
    with pytest.raises(OutputError, match="no folder"):
        write_whole(path / "below a file" / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# paths ---------------------------------------------------------------------------------------------------------------

SPLIT = recvae.strong_split(make_sample(60, 20).interactions, 10)
MODEL = recvae.EASE(l2=10.0).fit(SPLIT.train)
VAE = recvae.MultVAE(epochs=1, latent_dim=2, hidden_dims=(), random_state=0)
# everything public that takes a path
TAKERS = {
    "read": recvae.Interactions.read,
    "write": SPLIT.train.write,
    "load": recvae.load,
    "save": MODEL.save,
    "export_numpy": lambda path: export_numpy(VAE, path),
    "checkpoint": lambda path: VAE.fit(SPLIT.train.matrix, show_progress=False, checkpoint=path),
    "Checkpoint": lambda path: VAE.fit(SPLIT.train.matrix, show_progress=False, checkpoint=recvae.Checkpoint(path)),
    "Shards": Shards,
    "write_shards": lambda path: write_shards(path, "out"),
    "write_shards to": lambda path: write_shards("events.parquet", path),
    "home": lambda path: recvae.load_dataset("ml-1m", path, show_progress=False),
    "card": lambda path: recvae.load_card(path if isinstance(path, int) else f"{path}.toml" if path else Path()),
    "read_results": read_results,
    "study": lambda path: recvae.tune(recvae.models.baselines.ItemKNN, SPLIT, 1, study=path, show_progress=False),
    "JsonLines": JsonLines,
    "TensorBoard": TensorBoard,
}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty folder to be in, with events and a loop of links."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path / "home"))
    SPLIT.train.write("events.parquet")
    Path("loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("path", ["a\0b", "loop/x", "x" * 300, "~no such user/x", "\ud800", 3])
def test_a_path_that_is_none_is_a_sentence_everywhere(name, path, in_folder):
    if name == "export_numpy":
        VAE.fit(SPLIT.train.matrix, show_progress=False)
    with pytest.raises(RecvaeError) as raised:
        TAKERS[name](path)
    assert str(raised.value).isprintable()
    assert sorted(found.name for found in in_folder.iterdir()) == ["events.parquet", "loop"]


def test_home_is_the_same_on_the_way_in_and_out(in_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(in_folder / "me"))
    SPLIT.train.write("~/events.csv")
    MODEL.save("~/model")
    assert recvae.Interactions.read("~/events.csv").n_events == SPLIT.train.n_events
    assert recvae.load("~/model").n_items_ == MODEL.n_items_
    assert sorted(path.name for path in Path("me").iterdir()) == ["events.csv", "model"]
    assert not Path("~").exists()
    write_whole("./~", b"a file of that name")
    assert Path("~").exists()
    assert as_path(as_path("./~")) == in_folder / "~"


def test_what_is_no_path_says_what_it_is(tmp_path):
    for path, error, message in (
        (b"bytes", InvalidTypeError, "got bytes"),
        (None, InvalidTypeError, "got NoneType"),
        ("", InvalidParameterError, "got ''"),
        ("a\0b", InvalidParameterError, "got 'a"),
    ):
        for check in (input_path, output_path):
            with pytest.raises(error, match=message):
                check(path)
    for check, error in ((input_path, DataNotFoundError), (output_path, OutputError)):
        with pytest.raises(error, match="too long"):
            check("x" * 300)


def test_a_file_opened_as_text_is_refused_and_a_binary_one_may_be_slow(tmp_path):
    with (tmp_path / "text").open("w+") as file:
        for call in (MODEL.save, recvae.load):
            for text in (file, io.StringIO()):
                with pytest.raises(InvalidTypeError, match="which is open as text"):
                    call(text)
    with (tmp_path / "text").open("rb") as file, pytest.raises(OutputError, match="that can be written"):
        MODEL.save(file)

    class Slow(io.BytesIO):
        """Takes 1,000 bytes at a time, as a file without a buffer may."""

        def write(self, content):
            return super().write(bytes(content)[:1000])

    slow, whole = Slow(), io.BytesIO()
    MODEL.save(slow)
    MODEL.save(whole)
    assert len(slow.getvalue()) == len(whole.getvalue()) > 1000
    assert recvae.load(io.BytesIO(slow.getvalue())).n_items_ == MODEL.n_items_


def test_outputs_are_apart_from_inputs(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a").write_text("a")
    (tmp_path / "file").write_text("b")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source / "a")
    (tmp_path / "hard file").hardlink_to(tmp_path / "file")
    inputs = [source, tmp_path / "file"]
    for output, relation in (
        ("in", "is"),
        ("link", "is"),
        ("in/new", "lies within"),
        ("link/new/deep", "lies within"),
        ("other/../in/new", "lies within"),
        ("hard", "is a file of"),
        ("hard file", "is"),
        ("file", "is"),
        (".", "holds"),
    ):
        with pytest.raises(InvalidParameterError, match=f"Expected --out .*, which {relation} /"):
            check_apart({"--out": tmp_path / output}, inputs)
    check_apart({"--out": tmp_path / "out" / "new", "--log": tmp_path / "in2"}, inputs)


# messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines", "two lines"),
        ("a\r\n  b\u2028c\n", "a b c"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("turned \u202e around", r"turned \u202e around"),
        ("half \ud83d", r"half \ud83d"),
        ("Amélie 東京 ±", "Amélie 東京 ±"),
    ],
)
def test_a_message_is_one_line_that_steers_no_terminal(text, line):
    assert one_line(text) == line
    for kind in (InvalidDataError, OutputError, DataNotFoundError, InvalidTypeError):
        assert str(kind(text)) == line
    assert len(one_line("x" * 10**6)) < 5000


def test_results_are_not_read_from_a_folder(tmp_path):
    with pytest.raises(InvalidDataError, match="Is a directory"):
        read_results(tmp_path)
