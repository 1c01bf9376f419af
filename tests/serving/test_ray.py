"""Lists made on Ray: those of one machine, whatever happens to an actor; refusals as there, before anything starts."""

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recvae import EASE, Interactions, Recommender, Rules
from recvae.cli.main import main
from recvae.datasets.sample import make_sample
from recvae.errors import (
    EngineError,
    InvalidDataError,
    InvalidParameterError,
    MissingDependencyError,
    OutputError,
    UnknownNameError,
)
from recvae.models.base import UnknownItemsWarning
from recvae.utils.folder import SCRATCH
from tests import oracle

pytest.importorskip("duckdb")
if importlib.util.find_spec("ray") is None:
    pytest.skip('needs Ray: pip install "recvae[ray]"', allow_module_level=True)

from recvae.serving.batch import recommend_to_parquet
from recvae.serving.batch.ray_data import Cluster, PartActor

# what Ray warns of in its own code
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray.data.context"),
]
# processes stay for the next task: each has imported Ray and pandas
STAY = {"RAY_idle_worker_killing_time_threshold_ms": "1000000"}
QUIET = {"show_progress": False, "users_per_part": 40}


@pytest.fixture(scope="module")
def cluster():
    import ray.data  # takes a second, which workers that run other tests need not spend

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", **STAY)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().max_hash_shuffle_aggregators = 1  # each is a process that imports pandas
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def events():
    """160 users, repeated events of fractional values, some weak and some zero, unknown items."""
    cells = make_sample(160, 60).interactions.matrix.tocoo()
    random = np.random.default_rng(0)
    rows = np.concatenate([np.arange(cells.nnz), random.integers(0, cells.nnz, 900)])
    random.shuffle(rows)
    items = np.array([f"film {item}" for item in cells.col[rows]], dtype=object)
    items[::50] = [f"new {number % 7}" for number in range(len(items[::50]))]
    users = np.array([f"user {user * 37 % 160}" for user in cells.row[rows]], dtype=object)
    values = random.choice([0.0, 0.1, 0.2, 0.7, 1e6], len(rows))
    return pa.table({"wh'o": users, "the.item": items, "value": values})


@pytest.fixture(scope="module")
def path(events, tmp_path_factory):
    """A folder of two files, of which the texts are dictionaries; their names could be taken for others."""
    root = tmp_path_factory.mktemp("events")
    for name in ("run1", "run[1]"):
        (root / name / "day=1").mkdir(parents=True)
    pq.write_table(events[:50], root / "run1" / "day=1" / "1.parquet")
    folder = root / "run[1]"
    coded = events.set_column(0, "wh'o", events["wh'o"].dictionary_encode())
    pq.write_table(coded[:900], folder / "day=1" / "1.parquet")
    other = coded.append_column("WH'O", coded["the.item"]).cast(
        pa.schema([("wh'o", pa.large_string()), ("the.item", pa.string()), ("value", pa.float64()), ("WH'O", "string")])
    )
    pq.write_table(other[900:], folder / "2#?.parquet")
    return folder


@pytest.fixture(scope="module")
def model(events):
    titles = {f"film {number}": f"The {number}" for number in range(60)}
    known = events.filter(pa.compute.starts_with(events["the.item"], "film"))
    names = {"user": "wh'o", "item": "the.item", "value": "value"}
    return EASE(l2=20.0).fit(Interactions.from_frame(known, **names, values="raw", titles=titles))


def lists_of(folder):
    table = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])
    return table.sort_by([("user", "ascending"), ("rank", "ascending")])


def same(folder, expected):
    here, there = lists_of(folder), lists_of(expected)
    assert here.schema.equals(there.schema)
    assert here.drop_columns("score").equals(there.drop_columns("score"))
    np.testing.assert_allclose(here["score"].to_numpy(), there["score"].to_numpy(), rtol=1e-5, atol=1e-6)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_events_with_values_titles_and_unknown_items(model, path, tmp_path):
    """The command, which starts Ray and ends it, in a process of its own; then what a finished folder is good for."""
    columns = {"user": "wh'o", "item": "the.item", "value": "value", "min_value": 0.15}
    local = recommend_to_parquet(model, path, tmp_path / "local", 5, **QUIET, **columns)
    model.save(tmp_path / "model")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in columns.items()]
    command = [sys.executable, "-m", "recvae", "recommend", str(tmp_path / "model"), "--input", str(path), *flags]
    command += ["-N", "5", "--users-per-part", "40", "--out", f"{tmp_path}/ray/", "--engine", "ray", "--actors", "1"]
    environment = os.environ | STAY
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert str(local.unknown) in done.stderr
    assert "800 recommendations for 160 users are in" in done.stderr
    same(tmp_path / "ray", tmp_path / "local")
    assert "title" in lists_of(tmp_path / "ray").column_names
    manifest = json.loads((tmp_path / "ray" / "_manifest.json").read_text())
    assert manifest["done"]
    assert manifest["settings"]["engine"] == "ray"
    before = contents(tmp_path / "ray")
    assert sorted(before) == ["_manifest.json", *(part["file"] for part in manifest["parts"])]
    again = recommend_to_parquet(model, path, tmp_path / "ray", 5, engine="ray", **QUIET, **columns)
    assert (again.made, again.users, again.unknown) == (0, 160, local.unknown)
    for words, options in (("the engine with which", {}), ("the N with which", {"N": 6, "engine": "ray"})):
        with pytest.raises(InvalidParameterError, match=words):
            recommend_to_parquet(model, path, tmp_path / "ray", **{"N": 5} | options, **QUIET, **columns)
    assert contents(tmp_path / "ray") == before


@pytest.mark.parametrize(
    ("door", "more"),
    [
        (door, more)
        for door in ("recommend_for", "table", "parts", "ray")
        for more in (False, True)
        if more or door != "ray"
    ],
)
def test_what_was_seen_is_masked_at_every_door_alike(door, more, model, events, tmp_path, cluster):
    """Lists equal those made in the plainest way: of everybody, also of who liked nothing."""
    columns = {"user": "wh'o", "item": "the.item", "value": "value"}
    values = np.where(np.asarray(events["wh'o"]) == "user 3", 0.1, np.asarray(events["value"]))
    events = events.set_column(2, "value", pa.array(values))
    pq.write_table(events, tmp_path / "ev.parquet")
    views = [(f"user {user}", f"film {item}") for user in (0, 3, 5, 31, 900, 901) for item in (1, 2, 8, 13, 999)]
    seen = pa.table(dict(zip(["wh'o", "the.item"], zip(*views, strict=True), strict=True)))
    pq.write_table(seen, tmp_path / "seen.parquet")
    if door == "recommend_for":
        with pytest.warns(UnknownItemsWarning):
            found = model.recommend_for(events, 5, **columns, min_value=0.15, seen=seen if more else None)
    else:
        out = {"table": "top.parquet"}.get(door, "parts/")
        flags = [f"--{name}={column}" for name, column in columns.items()]
        model.save(tmp_path / "model")
        command = ["recommend", str(tmp_path / "model"), "--input", str(tmp_path / "ev.parquet"), *flags, "-N", "5"]
        command += ["--engine", "ray", "--actors", "1", "--users-per-part", "50"] if door == "ray" else []
        command += ["--seen", str(tmp_path / "seen.parquet")] if more else []
        assert main([*command, "--min-value", "0.15", "--out", f"{tmp_path}/{out}"]) == 0
        found = pq.read_table(tmp_path / out) if door == "table" else lists_of(tmp_path / "parts")
    expected = oracle.lists(model, events, 5, **columns, min_value=0.15, seen=views if more else ())
    assert len(expected) == (162 if more else 160)
    oracle.same(oracle.of_table(found), expected)


PAIRS = {"wh'o": ["user 3", "user 5", "user 5", "user 900"], "the.item": ["film 1", "film 2", "film 999", "film 3"]}
FILMS = {"the.item": [f"film {number}" for number in range(5, 45)]}
LABELS = {"the.item": [f"film {number}" for number in range(60)], "kind": [f"k{number % 4}" for number in range(60)]}
RULES = {
    "allow": {"allow": FILMS},
    "deny": {"deny": FILMS},
    "user_allow": {"user_allow": PAIRS},
    "user_deny": {"user_deny": PAIRS},
    "repeats": {"may_repeat": True},
    "some repeats": {"may_repeat": FILMS},
    "users": {"only_users": {"wh'o": ["user 3", "user 5", "user 31", "user 901"]}},
    "cap": {"categories": LABELS, "category": "kind", "category_cap": 1},
    "mmr": {"categories": LABELS, "category": "kind", "mmr": 0.5, "mmr_pool": 20},
    "new": {"new_items": FILMS, "new_places": 0.5},
}
RULES["all"] = {name: value for rules in RULES.values() for name, value in rules.items() if name != "deny"}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.filterwarnings("ignore::recvae.data.rules.UnknownIdsWarning")
def test_rules_give_the_same_lists_everywhere(name, model, events, tmp_path, cluster, monkeypatch, capsys):
    """`recommend_for`, the command with and without torch, parts of one machine and of Ray."""
    columns = {"user": "wh'o", "item": "the.item"}
    known = events.filter(pa.compute.starts_with(events["the.item"], "film"))
    pq.write_table(known, tmp_path / "ev.parquet")
    model.save(tmp_path / "model")
    rules = {key: pa.table(value) if isinstance(value, dict) else value for key, value in RULES[name].items()}
    expected = model.recommend_for(known, 6, **columns, rules=Rules(**rules))
    assert len(expected)
    flags = []
    for key, value in rules.items():
        if isinstance(value, pa.Table):
            pq.write_table(value, tmp_path / f"{key}.parquet")
            value = tmp_path / f"{key}.parquet"
        flags.append(f"--{key.replace('_', '-')}={'all' if value is True else value}")
    command = ["recommend", str(tmp_path / "model"), "--input", str(tmp_path / "ev.parquet"), "-N", "6", *flags]
    command += [f"--{key}={column}" for key, column in columns.items()]
    for out in ("linear.parquet", "torch.parquet", "local/"):
        assert main([*command, "--out", f"{tmp_path}/{out}"]) == 0
        monkeypatch.setattr("recvae.serving.linear.open_linear", lambda file: None)
    assert main([*command, "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tables = [pq.read_table(tmp_path / file) for file in ("linear.parquet", "torch.parquet")]
    tables += [pa.Table.from_pylist(printed), lists_of(tmp_path / "local")]
    if name == "all":  # from end to end; of the other rules what an actor does with them, which is faster
        options = {"engine": "ray", "actors": 1, "show_progress": False, "rules": Rules(**rules)}
        recommend_to_parquet(model, tmp_path / "ev.parquet", tmp_path / "ray", 6, **columns, **options)
        tables.append(lists_of(tmp_path / "ray"))
    resolved = cluster.put(Rules(**rules).resolve(model.known_items(), **columns))
    actor = PartActor(EASE, tmp_path, 6, None, None, 1000, torch.get_num_threads(), resolved)
    (part,) = actor(known.select(list(columns.values())).rename_columns(["user", "item"]))
    tables.append(pq.read_table(tmp_path / json.loads(part["part"][0].as_py())["file"]))
    for table in tables:
        oracle.same(oracle.of_table(table), oracle.of_table(expected))
    with pytest.raises(InvalidParameterError, match="the rules with which"):
        recommend_to_parquet(model, tmp_path / "ev.parquet", tmp_path / "local", 6, **columns, show_progress=False)


def test_lists_and_an_actor_that_is_killed(model, events, tmp_path, cluster):
    """Users in two rows, users without events; the output is the same to the byte, regardless of who made it."""
    by_user = events.group_by("wh'o").aggregate([("the.item", "list")]).rename_columns(["user", "item"])
    no_events = pa.table({"user": ["zz nobody"], "item": pa.array([[]], pa.list_(pa.string()))})
    pq.write_table(pa.concat_tables([by_user, by_user[:5], no_events]), tmp_path / "lists.parquet")
    small, over = QUIET | {"users_per_part": 8}, threading.Event()
    recommend_to_parquet(model, tmp_path / "lists.parquet", tmp_path / "local", 5, **QUIET)
    killed = threading.Thread(target=kill_an_actor, args=(tmp_path / "ray" / SCRATCH / "parts", found := [], over))
    killed.start()
    result = recommend_to_parquet(model, tmp_path / "lists.parquet", tmp_path / "ray", 5, engine="ray", **small)
    over.set()
    killed.join()
    assert found
    assert 0 < found[0] < result.parts
    assert result.users == 161
    same(tmp_path / "ray", tmp_path / "local")
    # what an older run left is begun again
    manifest = json.loads((tmp_path / "ray" / "_manifest.json").read_text())
    before = contents(tmp_path / "ray")
    del manifest["sha256"]
    (tmp_path / "ray" / "_manifest.json").write_text(json.dumps(manifest | {"done": False}))
    (tmp_path / "ray" / "part-00000.parquet").write_bytes(b"torn")
    (tmp_path / "ray" / "part-09999.parquet").write_bytes(b"left")
    again = recommend_to_parquet(
        model, tmp_path / "lists.parquet", tmp_path / "ray", 5, engine="ray", actors=1, **small
    )
    assert again.made == again.parts == result.parts
    assert contents(tmp_path / "ray") == before


def kill_an_actor(place, found, over):
    """Kill one that has the model, once there are files: one of ours, whatever else runs on this machine."""
    while not over.wait(0.002):
        n_files = len(list(place.glob("*.parquet"))) if place.exists() else 0
        if n_files:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "PartActor" in " ".join(process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
                        found.append(n_files)
                        return


@pytest.mark.parametrize("kind", [InvalidDataError, ZeroDivisionError])
def test_an_error_in_an_actor_is_a_sentence_and_nothing_is_left(kind, events, path, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(Recommender, "registry", dict(Recommender.registry))

    class Broken(EASE):
        def recommend(self, userid, user_items, *arguments, **rules):
            if user_items.shape[0]:
                raise kind("Expected a sunny day, got rain; wait.")
            return super().recommend(userid, user_items, *arguments, **rules)

    broken = Broken().fit(Interactions.from_frame(events, user="wh'o", item="the.item"))
    error = InvalidDataError if kind is InvalidDataError else EngineError
    with pytest.raises(error, match="a sunny day, got rain") as raised:
        recommend_to_parquet(
            broken, path, tmp_path / "out", user="wh'o", item="the.item", engine="ray", actors=1, **QUIET
        )
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    del raised  # its traceback has handles of actors, which keep the CPUs that the next test needs
    gc.collect()


def test_refusals_come_before_anything_starts(model, path, tmp_path, monkeypatch):
    """As with one machine; no cluster is started for them."""
    monkeypatch.setattr(Cluster, "parts", None)

    def refused(error, words, source=path, **options):
        with pytest.raises(error, match=words):
            recommend_to_parquet(
                model, source, tmp_path / "out", **QUIET | {"user": "wh'o", "item": "the.item"} | options
            )
        assert not (tmp_path / "out").exists()

    refused(UnknownNameError, "no engine called 'rya'; did you mean ray", engine="rya")
    refused(InvalidParameterError, "actors with engine='ray' only, got 2", actors=2)
    refused(InvalidParameterError, "ray_address with engine='ray' only", ray_address="auto")
    refused(InvalidParameterError, "actors to be an integer of at least 1, got 0", engine="ray", actors=0)
    refused(InvalidDataError, "Expected one column 'film'", engine="ray", item="film")
    pq.write_table(pa.table({"wh'o": ["a", None], "the.item": ["film 1"] * 2}), tmp_path / "bad.parquet")
    refused(InvalidDataError, 'every row of "wh\'o", got none in 1 of 2', tmp_path / "bad.parquet", engine="ray")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="an empty folder for the parts"):
        recommend_to_parquet(model, path, tmp_path / "mine", user="wh'o", item="the.item", engine="ray", **QUIET)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ray", None)
        refused(MissingDependencyError, r'run: pip install "recvae\[ray\]"', engine="ray")


def test_an_address_beside_a_connection_is_refused(cluster):
    with pytest.raises(InvalidParameterError, match="no address of a cluster, as this process is connected"):
        Cluster(address="auto")
