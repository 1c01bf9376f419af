"""What counts as an event, by flags and by cards: as the calls in Python."""

import numpy as np
import pandas as pd
import pytest

import recvae
from recvae.cli.main import main
from recvae.data.shards import Shards
from recvae.errors import InvalidDataError

WEIGHTS = {"view": 0.0, "cart": 3.0, "buy": 5.0}
CARD = """
name = "shop"
title = "A shop"
path = "events.csv"

[events]
columns = ["user", "item", "behavior", "time"]
header = true

[protocol]
heldout_users = 5
values = "raw"
min_user = 2
min_item = 2
k_core = true
half_life = "2w"
unknown_behavior = "drop"
weights = { view = 0, cart = 3, buy = 5 }
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    random = np.random.default_rng(0)
    n = 1200
    frame = pd.DataFrame({"user": 50 * random.random(n) ** 2, "item": 30 * random.random(n) ** 2}).astype(int)
    frame["event"] = random.choice([*WEIGHTS, "", "hover"], n, p=[0.3, 0.3, 0.3, 0.05, 0.05])
    frame["time"] = 1_600_000_000 + random.integers(0, 10_000_000, n)
    path = tmp_path_factory.mktemp("shop") / "events.csv"
    frame.to_csv(path, index=False)
    (path.parent / "shop.toml").write_text(CARD)
    return path


@pytest.fixture(scope="module")
def data(events):
    return recvae.Interactions.read(
        events, behavior="event", weights=WEIGHTS, unknown_behavior="drop", time="time", half_life="2w",
        values="raw", min_user=2, min_item=2, k_core=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def flags(events):
    behaviors = ["--behavior", "event", "--weights", "view=0,cart=3,buy=5", "--unknown-behavior", "drop"]
    return ["--input", str(events), "--values", "raw", *behaviors]


@pytest.fixture(scope="module")
def model(flags, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "m.recvae"
    rules = ["--min-user", "2", "--min-item", "2", "--k-core", "--time", "time", "--half-life", "2w"]
    assert main(["train", *flags, *rules, "--model", "EASE", "--out", str(out)]) == 0
    return out


def test_a_file_is_read_as_its_frame(events, data):
    frame = pd.read_csv(events, keep_default_na=False)
    options = {name: rule for name, rule in data.preparation.items() if name != "reference_time"}
    again = recvae.Interactions.from_frame(frame, time="time", values="raw", **options)
    assert again.fingerprint() == data.fingerprint()
    assert str(again.account) in str(data.account)
    assert "of the behaviour '', which has no weight" in str(data.account)


def test_flags_are_the_arguments(model, data, capsys):
    trained = recvae.load(model)
    assert trained.trained_on_ == data.fingerprint()
    assert trained.preparation_ == data.preparation
    assert trained.preparation_["weights"] == WEIGHTS


def test_a_card_has_the_rules(events, data):
    card = events.parent / "shop.toml"
    assert recvae.load_dataset(card).fingerprint() == data.fingerprint()
    expected = {**data.preparation, "behavior": "behavior"}  # the name in the card
    assert recvae.load_split(card).train.preparation == expected


def test_lists_weigh_as_in_training(model, events, flags, tmp_path):
    frame = pd.read_csv(events, keep_default_na=False)
    expected = recvae.load(model).recommend_for(frame, 4, behavior="event", unknown_behavior="drop")
    commands = {
        "flags": flags,
        "training's": [*flags[:4], "--behavior", "event", "--unknown-behavior", "drop"],
        "card": ["--dataset", str(events.parent / "shop.toml")],
    }
    for name, command in commands.items():
        out = tmp_path / f"{name}.parquet"
        assert main(["recommend", str(model), *command, "-N", "4", "--out", str(out)]) == 0
        lists = pd.read_parquet(out)
        assert lists[["user", "item"]].equals(expected[["user", "item"]]), name
        assert lists.score.tolist() == pytest.approx(expected.score.tolist(), rel=1e-4)
    # carts and purchases only are liked, but views are seen
    plain = recvae.load(model).recommend_for(frame, 4)
    assert not plain[["user", "item"]].equals(expected[["user", "item"]])


def test_the_configuration_has_weights_as_a_table(events, data, tmp_path):
    (tmp_path / "train.toml").write_text(
        f'input = "{events}"\nbehavior = "event"\nunknown-behavior = "drop"\nvalues = "raw"\nmodel = "EASE"\n'
        'time = "time"\nhalf-life = "2w"\nmin-user = 2\nmin-item = 2\nk-core = true\n'
        "weights = { view = 0, cart = 3, buy = 5 }\n"
    )
    assert main(["train", "--config", str(tmp_path / "train.toml"), "--out", str(tmp_path / "m")]) == 0
    assert recvae.load(tmp_path / "m").trained_on_ == data.fingerprint()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--weights", "view"], "NAME=NUMBER"),
        (["--weights", "view=much"], "much"),
        (["--weights", "view=-1"], "a number of 0 or more"),
        (["--half-life", "ages"], "30 days"),
    ],
)
def test_flags_that_are_none(wrong, said, flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", *flags, *wrong, "--out", str(tmp_path / "m")])
    assert said in capsys.readouterr().err


def test_rules_that_do_not_fit(flags, events, tmp_path, capsys):
    out = ["--out", str(tmp_path / "m")]
    assert main(["train", *flags[:6], *flags[6:8], *out]) == 2
    assert "have a weight" in capsys.readouterr().err
    assert main(["train", "--dataset", "sample", "--k-core", *out]) == 2
    assert "--k-core with --input only" in capsys.readouterr().err
    assert main(["train", *flags, "--half-life", "3d", *out]) == 2
    assert "column of times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"behavior", "time"', '"", "time"', "weights and the column behavior"),
        ("buy = 5", "buy = -5", "'buy'"),
        ('"2w"', '"two weeks"', "half_life"),
        ('"drop"', '"leave"', "Expected one of refuse, drop"),
    ],
)
def test_cards_that_are_none(old, new, said, events, tmp_path):
    (tmp_path / "shop.toml").write_text(CARD.replace(old, new))
    with pytest.raises(InvalidDataError, match=said):
        recvae.load_card(tmp_path / "shop.toml")


def test_folders_and_shards_take_the_flags(model, events, flags, tmp_path, capsys):
    frame = pd.read_csv(events, keep_default_na=False)
    frame.to_parquet(tmp_path / "events.parquet")
    behaviors = ["--input", str(tmp_path / "events.parquet"), "--behavior", "event", "--unknown-behavior", "drop"]
    assert main(["recommend", str(model), *behaviors, "-N", "4", "--out", f"{tmp_path / 'lists'}/"]) == 0
    lists = pd.read_parquet(tmp_path / "lists" / "part-00000.parquet")
    expected = recvae.load(model).recommend_for(frame, 4, behavior="event", unknown_behavior="drop")
    assert lists[["user", "item"]].equals(expected[["user", "item"]])
    rules = ["--weights", "view=0,cart=3,buy=5", "--min-user", "2", "--min-item", "2", "--k-core", "--values", "raw"]
    assert main(["shard", *behaviors, *rules, "--out", str(tmp_path / "shards")]) == 0
    data = recvae.Interactions.from_frame(
        frame, behavior="event", weights=WEIGHTS, unknown_behavior="drop",
        min_user=2, min_item=2, k_core=True, values="raw",
    )  # fmt: skip
    assert Shards(tmp_path / "shards").fingerprint() == data.fingerprint()


def test_other_kinds_of_files_have_behaviours(events, data, tmp_path):
    frame = pd.read_csv(events, keep_default_na=False)
    frame.to_json(tmp_path / "events.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "events.parquet")
    options = {name: rule for name, rule in data.preparation.items() if name != "reference_time"}
    for name in ("events.jsonl", "events.parquet"):
        again = recvae.Interactions.read(tmp_path / name, time="time", values="raw", **options)
        assert again.fingerprint() == data.fingerprint(), name
