import pytest

from recvae.errors import OutputError
from recvae.files import write_whole


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
