"""The flags for the format of a file, in every command that reads one."""

import pytest

from recvae.cli.main import main

FLAGS = ["--no-header", "--user", "0", "--item", "1", "--value", "2", "--time", "3"]
FORMAT = ["--delimiter", ";", "--decimal", ",", "--time-format", "%d/%m/%Y", "--encoding", "cp1252"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("reading")
    rows = [(f"Zoë{k % 12}", f"i{k * 7 % 31}", "4,5", f"{1 + k % 28}/1/2020") for k in range(240)]
    text = "".join(";".join(row) + "\n" for row in rows)
    (made / "events.dat").write_bytes(text.encode("cp1252"))
    (made / "gaps.dat").write_bytes(f"{text};i1;3,0;1/1/2020\n?;i1;3,0;1/1/2020\n".encode("cp1252"))
    arguments = ["train", "--model", "EASE", "--input", str(made / "events.dat"), *FLAGS, *FORMAT]
    assert main([*arguments, "--out", str(made / "model")]) == 0
    return made


def test_given_and_guessed_are_equal_and_the_guess_is_said(folder, capsys):
    source = ["recommend", str(folder / "model"), "--input", str(folder / "events.dat"), *FLAGS, "-N", "2"]
    assert main([*source, *FORMAT]) == 0
    given = capsys.readouterr()
    assert "guessed" not in given.err
    assert given.out.count("\n") == 25
    assert main([*source, "--decimal", ",", "--time-format", "%d/%m/%Y"]) == 0
    guessed = capsys.readouterr()
    assert guessed.out == given.out
    assert "events.dat: read, as guessed, with delimiter ;, encoding cp1252\n" in guessed.err


def test_rows_without_an_id_by_flag_and_by_configuration(folder, tmp_path, capsys):
    source = ["recommend", str(folder / "model"), "--input", str(folder / "gaps.dat"), *FLAGS, *FORMAT, "-N", "2"]
    assert main(source) == 2
    message = capsys.readouterr().err
    assert "in every row of '0', got none in line 241 of" in message
    assert "drop such rows, as --without-id 'drop' does" in message
    assert main([*source, "--without-id", "drop", "--missing", "?"]) == 0
    out, err = capsys.readouterr()
    assert "gaps.dat: 2 rows without an id left out" in err
    (tmp_path / "c.toml").write_text('without-id = "drop"\nmissing = ["?"]\nheader = false\n')
    assert main([*source, "--config", str(tmp_path / "c.toml")]) == 0
    assert capsys.readouterr().out == out


def test_seen_and_test_input_are_read_by_the_same_flags(folder, tmp_path, capsys):
    files = ["--input", str(folder / "events.dat"), *FLAGS, *FORMAT]
    seen = tmp_path / "seen.dat"
    seen.write_bytes("".join(f"Zoë0;i{k}\n" for k in range(29)).encode("cp1252"))
    assert main(["recommend", str(folder / "model"), *files, "--seen", str(seen), "-N", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith('"Zoë0",') for line in lines) < sum(line.startswith('"Zoë1",') for line in lines)
    later = "".join(f"Zoë{k % 12};i{k * 7 % 31};4,5;1/2/2020\n" for k in range(240, 300))
    (tmp_path / "test.dat").write_bytes(later.encode("cp1252"))
    given = ["--split", "given", "--valid-share", "0.2", "--test-input", str(tmp_path / "test.dat")]
    assert main(["train", "--model", "EASE", *files, *given, "--out", str(tmp_path / "m")]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--user", "0", "--item", "1", "--delimiter", "|"], "got 1 columns: ['Zo"),
        (["--user", "0", "--item", "1", "--value", "2"], "--decimal ','; "),
        (["--user", "0", "--item", "1", "--time", "3"], "--time-format '%d/%m/%Y'"),
        ([], "name others by --user, --item, --value, --time; where line 1 is a row, name the columns by position, "
         "from 0, as --no-header --user 0 --item 1 does"),
        (["--dataset", "sample"], "either --input FILE or --dataset NAME"),
        (["--user", "0", "--item", "1", "--encoding", "utf-8"], "--encoding 'latin-1'"),
        (["--user", "0", "--item", "1", "--encoding", "klingon"], "unknown encoding: klingon"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_flag_that_mends_it(flags, message, folder, tmp_path, capsys):
    source = ["--input", str(folder / "events.dat")]
    assert main(["train", "--model", "EASE", *source, *flags, "--out", str(tmp_path / "m")]) == 2
    captured = capsys.readouterr()
    assert message.removesuffix("; ") in captured.err
    assert captured.err.count("\n") == 1


def test_options_of_reading_are_not_for_data_sets(tmp_path, capsys):
    assert main(["train", "--dataset", "sample", "--delimiter", ";", "--out", str(tmp_path / "m")]) == 2
    assert "Expected options of reading with --input only" in capsys.readouterr().err
