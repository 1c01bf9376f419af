"""The papers' folder of a split, against their preprocessing; what is written, damaged folders; LightGCN's folder."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

import recvae
from recvae.cli.main import main
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidParameterError, OutputError

SEED, HELDOUT = 98765, 30


def preprocess(ratings, folder, heldout, min_value, users_file):
    """The 2018 preprocessing, as the papers describe it, on columns user, item, rating in the order of the file."""
    ratings = ratings[ratings.rating >= min_value]
    counts = ratings.groupby("user").size()
    ratings = ratings[ratings.user.isin(counts.index[counts >= 5])]
    users = np.sort(ratings.user.unique())
    users = users[np.random.RandomState(SEED).permutation(len(users))]
    n = len(users) - 2 * heldout
    train = ratings[ratings.user.isin(users[:n])]
    items = pd.unique(train.item)
    uid, sid = ({raw: number for number, raw in enumerate(ids)} for ids in (users, items))
    folder.mkdir(parents=True)

    def write(events, name):
        numbers = {"uid": events.user.map(uid), "sid": events.item.map(sid)}
        pd.DataFrame(numbers).to_csv(folder / name, index=False)

    write(train, "train.csv")
    for name, part in (("validation", users[n : n + heldout]), ("test", users[n + heldout :])):
        random = np.random.RandomState(SEED)
        events = ratings[ratings.user.isin(part) & ratings.item.isin(items)]
        seen, held = [], []
        for _, of_user in events.groupby("user"):
            mask = np.zeros(len(of_user), dtype=bool)
            if len(of_user) >= 5:
                mask[random.choice(len(of_user), int(0.2 * len(of_user)), replace=False)] = True
            seen.append(of_user[~mask])
            held.append(of_user[mask])
        write(pd.concat(seen), f"{name}_tr.csv")
        write(pd.concat(held), f"{name}_te.csv")
    for name, ids in (("unique_sid.txt", items), ("unique_uid.txt", users)):
        if name == "unique_sid.txt" or users_file:
            (folder / name).write_text("".join(f"{raw}\n" for raw in ids))


def movielens(n_users=160, n_items=400):
    """Made-up ratings, as in MovieLens' files: by user, then item; ids with gaps; some items rare."""
    random = np.random.default_rng(3)
    rows = []
    for user in np.sort(random.choice(np.arange(1, 5 * n_users), n_users, replace=False)):
        items = np.unique((n_items * random.random(random.integers(4, 30)) ** 2).astype(int))
        rows += [
            (user, 7 * item + 2, rating) for item, rating in zip(items, random.integers(1, 6, len(items)), strict=True)
        ]
    return pd.DataFrame(rows, columns=["user", "item", "rating"])


@pytest.fixture(scope="module")
def ratings():
    return movielens()


@pytest.fixture(scope="module")
def drawn(ratings):
    data = recvae.Interactions.from_frame(ratings, value="rating", min_value=3, min_user=5)
    return recvae.strong_split(data, HELDOUT, seed=SEED)


@pytest.fixture(scope="module")
def papers(ratings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pro_sg"
    preprocess(ratings, folder, HELDOUT, 3, users_file=True)
    return folder


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "split"
    drawn.write(folder)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_holdout(read, own):
    assert read.users.tolist() == own.users.tolist()
    assert read.item_ids.tolist() == own.item_ids.tolist()
    assert ((read.fold_in != 0) != (own.fold_in != 0)).nnz == 0
    assert ((read.held_out != 0) != (own.held_out != 0)).nnz == 0
    assert read.dropped == own.dropped
    assert read.item_counts.tolist() == own.item_counts.tolist()
    assert read.n_train == own.n_train


def assert_same_split(read, own):
    assert read.train.user_ids.tolist() == own.train.user_ids.tolist()
    assert read.items.tolist() == own.items.tolist()
    assert ((read.train.matrix != 0) != (own.train.matrix != 0)).nnz == 0
    assert_same_holdout(read.valid, own.valid)
    assert_same_holdout(read.test, own.test)


def test_the_papers_folder_is_the_split_that_is_drawn(papers, drawn):
    assert drawn.valid.dropped
    assert drawn.test.dropped
    assert_same_split(recvae.load_split(papers), drawn)
    assert_same_split(recvae.load_split(str(papers.parent)), drawn)  # the folder around pro_sg


def test_without_ids_of_users_they_are_numbered(ratings, drawn, tmp_path):
    preprocess(ratings, tmp_path / "split", HELDOUT, 3, users_file=False)
    read = recvae.load_split(tmp_path / "split")
    assert read.train.user_ids.tolist() == list(range(drawn.train.n_users))
    assert read.train.matrix.sum(0).tolist() == (drawn.train.matrix != 0).sum(0).tolist()
    assert read.test.dropped == drawn.test.dropped
    assert sorted(map(tuple, read.test.held_out.toarray())) == sorted(map(tuple, drawn.test.held_out.toarray() != 0))


def test_real_data_in_the_papers_folder(data_home, tmp_path):
    ratings = pd.read_csv(data_home / "ml-100k" / "u.data", sep="\t", names=["user", "item", "rating", "time"])
    ratings = ratings.sort_values(["user", "item"])
    preprocess(ratings, tmp_path / "split", 100, 4, users_file=True)
    card = recvae.load_split("ml-100k", data_home, split="strong", heldout_users=100, min_value=4, min_user=5)
    assert_same_split(recvae.load_split(tmp_path / "split"), card)


def test_what_is_written_is_read_and_written_again_equal(drawn, written, tmp_path):
    read = recvae.load_split(written)
    assert read.items.tolist() == drawn.items.tolist()
    assert read.test.users.tolist() == drawn.test.users.tolist()
    assert ((read.test.held_out != 0) != (drawn.test.held_out != 0)).nnz == 0
    assert read.train.user_ids.tolist() == drawn.train.user_ids.tolist()
    read.write(tmp_path / "again")
    assert files(tmp_path / "again") == files(written)


def test_the_authors_loader_reads_what_is_written(drawn, written):
    """As the papers' notebooks load it: sizes from the files alone."""
    n_items = len((written / "unique_sid.txt").read_text().split())
    train = pd.read_csv(written / "train.csv")
    assert (train.uid.max() + 1, n_items) == drawn.train.matrix.shape
    assert len(train) == drawn.train.n_events
    seen, held = (pd.read_csv(written / f"test_{part}.csv") for part in ("tr", "te"))
    start = min(seen.uid.min(), held.uid.min())
    rows = np.zeros((len(drawn.test.users), n_items))
    rows[held.uid - start, held.sid] = 1
    assert (rows == (drawn.test.held_out != 0).toarray()).all()


@pytest.mark.parametrize("ids", ["numbers", "words", "unsorted"])
def test_ids_of_any_kind_and_order(ids, tmp_path):
    data = recvae.Interactions.from_frame(movielens(60, 40))
    users, items = data.user_ids, data.item_ids
    if ids == "words":  # as text 10 comes before 9
        users, items = (
            np.array([f'{kind}{n},"x' for n in of.tolist()], dtype=object) for kind, of in (("u", users), ("", items))
        )
    if ids == "unsorted":
        users, items = users[::-1].copy(), np.random.default_rng(0).permutation(items)
    data = recvae.Interactions.from_matrix(data.matrix, user_ids=users, item_ids=items)
    split = recvae.strong_split(data, 10)
    split.write(tmp_path / "a")
    read = recvae.load_split(tmp_path / "a")
    cells = split.test.held_out.tocoo()
    pairs = {(split.test.users[u], split.items[i]) for u, i in zip(cells.row, cells.col, strict=True)}
    cells = read.test.held_out.tocoo()
    assert pairs == {(read.test.users[u], read.items[i]) for u, i in zip(cells.row, cells.col, strict=True)}
    read.write(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_users_who_are_trained_on(tmp_path):
    data = recvae.Interactions.from_frame(movielens(60, 40))
    split = recvae.per_user_split(data)
    split.write(tmp_path / "a")
    read = recvae.load_split(tmp_path / "a")
    assert_same_split(read, split)
    assert (
        read.refit.fingerprint()
        == recvae.Interactions(
            (split.refit.matrix != 0).astype(np.float32), split.refit.user_ids, split.refit.item_ids
        ).fingerprint()
    )
    assert read.test.train_rows.tolist() == split.test.train_rows.tolist()
    read.write(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


DAMAGES = {
    "a sid without a name": ("train.csv", "0,9999", "line LAST: expected a sid below"),
    "a uid without a name": ("test_te.csv", "9999,1", "line LAST: expected a uid below"),
    "a negative number": ("train.csv", "-1,0", "line LAST: expected a uid of 0 or more, got -1"),
    "text": ("validation_tr.csv", "1,one", "line LAST: expected a number as sid, got 'one'"),
    "a cut line": ("test_tr.csv", "12", "line LAST"),
    "an empty cell": ("test_tr.csv", "12,", "line LAST"),
    "a training user": ("validation_te.csv", "0,1", "line LAST: the user 0 is a training user"),
    "a repeated item": ("unique_sid.txt", "2", "line LAST: '2' is there twice"),
    "an empty line": ("unique_sid.txt", "\n99999", "line LAST: expected an id, got an empty line"),
    "a user without an id": ("unique_uid.txt", " ", "line LAST"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_by_file_and_line(damage, papers, tmp_path):
    name, line, message = DAMAGES[damage]
    shutil.copytree(papers, tmp_path / "split")
    lines = (tmp_path / "split" / name).read_text()
    (tmp_path / "split" / name).write_text(f"{lines}{line}\n")
    last = lines.count("\n") + 1
    with pytest.raises(InvalidDataError, match=re.escape(message.replace("LAST", str(last)))) as error:
        recvae.load_split(tmp_path / "split")
    assert name in str(error.value)


def test_files_that_contradict_each_other(papers, tmp_path):
    shutil.copytree(papers, tmp_path / "split")
    held = (papers / "test_te.csv").read_text().splitlines()
    seen = tmp_path / "split" / "test_tr.csv"
    content = seen.read_text()
    seen.write_text(content + held[3] + "\n")
    with pytest.raises(InvalidDataError, match=r"test_te\.csv cannot be read: line 4: the pair .* is in test_tr\.csv"):
        recvae.load_split(tmp_path / "split")
    user = held[-1].split(",")[0]
    seen.write_text("".join(f"{line}\n" for line in content.splitlines() if not line.startswith(f"{user},")))
    with pytest.raises(InvalidDataError, match=rf"test_te\.csv .*line \d+: the user {user} is not in test_tr\.csv"):
        recvae.load_split(tmp_path / "split")
    first = (papers / "validation_tr.csv").read_text().splitlines()[1]
    seen.write_text(f"{content}{first}\n")
    last = content.count("\n") + 1
    with pytest.raises(InvalidDataError, match=rf"test_tr\.csv .*line {last}: .* is in validation_te\.csv, too"):
        recvae.load_split(tmp_path / "split")


def test_missing_files_and_columns(papers, tmp_path):
    shutil.copytree(papers, tmp_path / "split")
    (tmp_path / "split" / "test_te.csv").write_text("uid,sid\n")
    with pytest.raises(InvalidDataError, match=r"test_te\.csv cannot be read: line 2: expected a row"):
        recvae.load_split(tmp_path / "split")
    (tmp_path / "split" / "test_te.csv").write_text("user,item\n1,2\n")
    with pytest.raises(InvalidDataError, match=r"test_te\.csv cannot be read: line 1: .*'uid'"):
        recvae.load_split(tmp_path / "split")
    (tmp_path / "split" / "test_te.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"has no test_te\.csv"):
        recvae.load_split(tmp_path / "split")
    with pytest.raises(DataNotFoundError, match=r"train\.csv.*train\.txt"):
        recvae.load_split(tmp_path)


def test_repeated_lines_are_counted(papers, tmp_path):
    shutil.copytree(papers, tmp_path / "split")
    train = tmp_path / "split" / "train.csv"
    train.write_text(train.read_text() + train.read_text().splitlines()[1] + "\n")
    split = recvae.load_split(tmp_path / "split")
    assert split.train.matrix.max() == 1
    assert "1 that repeat a pair" in str(split.train.account)


def test_options_that_the_files_settle_are_refused(papers):
    with pytest.raises(InvalidParameterError, match="got heldout_users"):
        recvae.load_split(papers, heldout_users=3)
    with pytest.raises(InvalidParameterError, match="min_value"):
        recvae.load_split(papers, min_value=3)
    with pytest.raises(InvalidDataError, match="load_split"):
        recvae.load_dataset(papers)


def test_what_cannot_be_written(drawn, written, tmp_path):
    with pytest.raises(OutputError, match="empty folder"):
        drawn.write(written)
    data = recvae.Interactions.from_frame(movielens(60, 40), value="rating", values="raw")
    with pytest.raises(InvalidDataError, match="values='raw'"):
        recvae.strong_split(data, 10).write(tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.fixture
def lightgcn(tmp_path):
    random = np.random.default_rng(1)
    lines = {"train": [], "test": []}
    for user in range(60):
        items = random.permutation(40)[:20].tolist()
        lines["train"].append(" ".join(map(str, [user, *items[:15]])))
        lines["test"].append(" ".join(map(str, [user, *items[15:]])) if user else "0 ")
    for name, content in lines.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(content) + "\n")
    return tmp_path


def test_lightgcn_folder_needs_no_card(lightgcn):
    split = recvae.load_split(lightgcn, valid_share=0.2)
    assert split.refit.n_events == 60 * 15
    assert split.test.held_out.nnz == 59 * 5
    assert split.valid.held_out.nnz == 60 * 3
    assert recvae.load_dataset(lightgcn).n_events == 60 * 15 + 59 * 5
    assert recvae.load_card(lightgcn).protocol.metrics == ["recall_full@20", "ndcg@20"]
    (lightgcn / "test.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"has no test\.txt"):
        recvae.load_split(lightgcn)


def test_commands_take_the_folder(papers, lightgcn, tmp_path, capsys):
    out = tmp_path / "model.recvae"
    assert main(["train", "--split-folder", str(papers), "--model", "EASE", "--out", str(out)]) == 0
    assert main(["evaluate", str(out), "--split-folder", str(papers), "--metrics", "ndcg@10"]) == 0
    model = recvae.load(out)
    ndcg = recvae.evaluate(model, recvae.load_split(papers).test, "ndcg@10")["ndcg@10"].mean
    assert f"{ndcg:.4f}" in capsys.readouterr().out
    for folder in (papers, lightgcn):
        command = ["benchmark", "--split-folder", str(folder), "--models", "Popularity", "--examples", "0"]
        assert main(command) == 0
        assert "Popularity" in capsys.readouterr().out
    assert main(["train", "--split-folder", str(papers), "--dataset", "sample", "--out", str(out)]) == 2
    assert "without --dataset" in capsys.readouterr().err
