import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from recvae.data.batches import Batch
from recvae.distributed import communicator as communicators
from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.distributed.launch import joined
from recvae.errors import InvalidParameterError, LostRankError
from tests.distributed.ranks import environment, free_port, run_ranks, torchrun

SIZE = 2


def table(rank, n_rows=3):
    return torch.from_numpy(np.random.default_rng(rank).normal(size=(n_rows, 4)))


def batch(n_users=5):
    lengths = np.arange(n_users) % 3
    bounds = np.concatenate([[0], lengths.cumsum()])
    items = torch.arange(bounds[-1], dtype=torch.int32)
    return Batch(items, 0.5 * items.float(), torch.from_numpy(bounds), bounds, 10 + torch.arange(n_users))


def parameters(rank, share, bucket=None):
    """Gradients of a rank: dense, sparse, none on rank 1, none anywhere, not learning."""
    made = [torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64)) for _ in range(5)]
    rows = torch.tensor([[0, 3, 0], [3, 5, 5]][rank])
    dense, sparse, sometimes, _, still = made
    dense.grad = table(rank, 6)
    sparse.grad = torch.sparse_coo_tensor(rows[None], table(10 + rank), (6, 4), check_invariants=False)
    sometimes.grad = table(20, 6) if rank == 0 else None
    still.requires_grad_(False)
    still.grad = table(rank, 6)
    return made


def without_users(communicator):
    """Gradients where rank 1 has no users: what there is, and how often the ranks asked for the kinds."""
    dense, sparse = (torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64)) for _ in range(2))
    asked, found = [], []
    reduced = communicator.all_reduce_max
    communicator.all_reduce_max = lambda tensor: (asked.append(1), reduced(tensor))[1]
    for _ in range(2):
        dense.grad = sparse.grad = None
        if communicator.rank == 0:
            dense.grad = table(0, 6)
            sparse.grad = torch.sparse_coo_tensor(torch.tensor([[4, 2]]), table(1, 2), (6, 4), check_invariants=False)
        communicator.all_reduce_gradients([dense, sparse], 1.0 if communicator.rank == 0 else 0.0)
        found.append((dense.grad, sparse.grad))
    del communicator.all_reduce_max
    return found, len(asked)


def everything(communicator):
    rank, found = communicator.rank, {}
    found["current"] = communicators.current_communicator() is communicator
    with joined() as inner:
        found["inner"] = inner is communicator
    found["sum"] = communicator.all_reduce(table(rank))
    found["whole"] = communicator.all_reduce(torch.tensor(rank + 1))
    found["narrow"] = communicator.all_reduce(table(rank).bfloat16())
    found["columns"] = communicator.all_reduce(table(rank).T)
    found["max"] = communicator.all_reduce_max(table(rank))
    found["gather"] = communicator.all_gather(table(rank, 2 + 3 * rank))
    found["gather none"] = communicator.all_gather(table(rank, 2 * (1 - rank)))
    found["collect"] = communicator.gather(table(rank, 2 + 3 * rank))
    found["broadcast"] = communicator.broadcast({"rank": rank})
    found["all"] = communicator.all_gather_object(("rank", rank))
    communicator.barrier()
    found["main"] = communicator.is_main_process
    shards = [communicator.shard_batch(batch(n)) for n in (5, 1)]
    found["shards"] = [(s.items, s.values, s.offsets, s.bounds, s.users, s.rows) for s in shards]
    found["unbound"] = communicator.shard_batch(replace(batch(), bounds=None, users=None))
    for size in (25 << 20, 100):  # one bucket, and one for each
        communicators.BUCKET_BYTES = size
        learning = parameters(rank, 0.25)
        communicator.all_reduce_gradients(learning, 0.25 if rank == 0 else 0.75)
        found["gradients", size] = [each.grad for each in learning]
    found["without users"] = without_users(communicator)
    communicator.assert_same_on_all_ranks("options", "as you like it")
    try:
        communicator.assert_same_on_all_ranks("data", "0123" if rank == 0 else "4567")
    except InvalidParameterError as error:
        found["agree"] = str(error)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    found = run_ranks(everything, SIZE, tmp_path_factory.mktemp("ranks"))
    assert all(isinstance(each, dict) for each in found), found
    return found


def test_each_exchange_gives_what_numpy_gives(ranks):
    one, other = (table(rank).numpy() for rank in range(SIZE))
    for found in ranks:
        np.testing.assert_allclose(found["sum"], one + other)
        np.testing.assert_allclose(found["columns"], (one + other).T)
        np.testing.assert_allclose(found["narrow"].double(), one + other, atol=0.03)
        assert found["narrow"].dtype == torch.bfloat16
        assert found["whole"] == 3
        np.testing.assert_array_equal(found["max"], np.maximum(one, other))
        np.testing.assert_array_equal(found["gather"], np.concatenate([table(0, 2), table(1, 5)]))
        np.testing.assert_array_equal(found["gather none"], table(0, 2))
        assert found["broadcast"] == {"rank": 0}
        assert found["all"] == [("rank", 0), ("rank", 1)]
    assert [found["main"] for found in ranks] == [True, False]
    np.testing.assert_array_equal(ranks[0]["collect"], np.concatenate([table(0, 2), table(1, 5)]))
    assert ranks[1]["collect"] is None


def test_the_communicator_is_the_current_one_within_the_block_alone(ranks):
    assert all(found["current"] and found["inner"] for found in ranks)
    assert communicators.current_communicator() is SINGLE_PROCESS


def test_shards_of_a_batch_are_the_batch(ranks):
    for index, n_users in enumerate((5, 1)):
        whole = batch(n_users)
        parts = [found["shards"][index] for found in ranks]
        items, values, offsets, bounds, users, rows = zip(*parts, strict=True)
        assert [len(each) for each in users] == [n_users // 2, n_users - n_users // 2]
        for found, expected in ((items, whole.items), (values, whole.values), (users, whole.users)):
            torch.testing.assert_close(torch.cat(found), expected)
        lengths = torch.cat([each.diff() for each in offsets])
        torch.testing.assert_close(lengths, whole.offsets.diff())
        assert all(np.array_equal(a, b) for a, b in zip(offsets, bounds, strict=True))
        assert [len(each) for each in rows] == [len(each) for each in items]
    assert all(found["unbound"].bounds is None and found["unbound"].users is None for found in ranks)


def test_gradients_are_summed_by_the_weight_of_each_rank(ranks):
    for size in (25 << 20, 100):
        own = [parameters(rank, 0) for rank in range(SIZE)]
        for rank, found in enumerate(ranks):
            dense, sparse, sometimes, never, still = found["gradients", size]
            expected = [0.25 * a.grad.to_dense() + 0.75 * b.grad.to_dense() for a, b in list(zip(*own))[:2]]  # noqa: B905
            torch.testing.assert_close(dense, expected[0])
            assert sparse.is_coalesced()
            assert sparse.indices().tolist() == [[0, 3, 5]]  # no other row was touched
            torch.testing.assert_close(sparse.to_dense(), expected[1])
            torch.testing.assert_close(sometimes, 0.25 * table(20, 6))
            assert never is None
            torch.testing.assert_close(still, table(rank, 6))


def test_a_rank_without_users_has_the_gradients_of_the_others(ranks):
    for found, asked in (each["without users"] for each in ranks):
        for dense, sparse in found:
            torch.testing.assert_close(dense, table(0, 6))
            assert sparse.indices().tolist() == [[2, 4]]
            torch.testing.assert_close(sparse.values(), table(1, 2).flip(0))
        assert asked == 1


def test_ranks_that_differ_all_raise_one_sentence(ranks):
    for found in ranks:
        assert found["agree"] == (
            "Expected the same data on all ranks, got '0123' on rank 0 and '4567' on rank 1; start all ranks by one "
            "command, on the same files."
        )


# a lost rank -------------------------------------------------------------------------------------------------------

START_AGAIN = "start all ranks again, from the last checkpoint where there is one."


def ends(communicator, how, who):
    communicator.current_step = "step 3 of epoch 2"
    communicator.all_reduce(torch.zeros(1))
    if communicator.rank == who:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("the third file\nis damaged")
    communicator.all_reduce(torch.zeros(1))


@pytest.mark.parametrize(
    ("how", "who", "words"),
    [
        ("raises", 1, "rank 1 ended with: ValueError: the third file is damaged"),
        ("killed", 0, "rank 0, which hosts the store of the ranks, stopped responding"),
    ],
)
def test_the_others_say_which_rank_is_lost_and_why(how, who, words, tmp_path):
    found = run_ranks(ends, 2, tmp_path, how=how, who=who)
    other = 1 - who
    assert found[who] == (None if how == "killed" else "ValueError: the third file\nis damaged")
    assert found[other] == (
        f"LostRankError: Rank {other} of 2 lost another rank in all_reduce in step 3 of epoch 2: {words}; {START_AGAIN}"
    )


SCRIPT = """
import os, signal, time, torch
from recvae.distributed.launch import joined

with joined("cpu") as communicator:
    communicator.all_reduce(torch.zeros(1))
    if communicator.rank == 1:
        {end}
    {other}
"""


@pytest.mark.parametrize(
    ("end", "other", "sentence"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "communicator.all_reduce(torch.zeros(1))",
            "in all_reduce: rank 1 stopped responding;",
        ),
        (
            "raise ValueError('the third file is damaged')",
            "time.sleep(60)",
            "in training, and was asked to end (SIGTERM): rank 1 ended with: ValueError: the third file is damaged;",
        ),
    ],
    ids=["killed", "raises while the other computes"],
)
def test_under_torchrun_the_others_say_it_too(end, other, sentence, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(end=end, other=other))
    ended = torchrun(script, 2)
    assert ended.returncode != 0
    assert f"LostRankError: Rank 0 of 2 lost another rank {sentence} {START_AGAIN}" in ended.stderr
    if "ValueError" in end:  # torchrun's own table of failures has the error of the rank that failed first
        table = ended.stderr.partition("Root Cause")[2]
        assert "rank      : 1" in table
        assert "ValueError: the third file is damaged" in table


# coming together -----------------------------------------------------------------------------------------------------


@pytest.fixture
def rank_of_two(monkeypatch):
    for name, value in environment(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)


def test_without_a_launch_there_is_a_single_process():
    with joined() as communicator:
        assert communicator is SINGLE_PROCESS
    gradients = parameters(0, 1)
    SINGLE_PROCESS.all_reduce_gradients(gradients, 0.5)
    torch.testing.assert_close(gradients[0].grad, table(0, 6))
    SINGLE_PROCESS.assert_same_on_all_ranks("data", "0123")
    SINGLE_PROCESS.barrier()
    assert SINGLE_PROCESS.shard_batch(whole := batch()) is whole
    assert SINGLE_PROCESS.is_main_process
    assert SINGLE_PROCESS.all_gather_object("a") == ["a"]
    assert SINGLE_PROCESS.broadcast("a") == "a"
    for method in (
        SINGLE_PROCESS.all_reduce,
        SINGLE_PROCESS.all_reduce_max,
        SINGLE_PROCESS.all_gather,
        SINGLE_PROCESS.gather,
    ):
        torch.testing.assert_close(method(table(0)), table(0))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_all_things_once(size):
    parts = [Communicator(rank, size).shard_range(10) for rank in range(size)]
    assert [i for part in parts for i in range(10)[part]] == list(range(10))
    assert max(len(range(10)[part]) for part in parts) - min(len(range(10)[part]) for part in parts) <= 1


@pytest.mark.usefixtures("rank_of_two")
def test_errors_in_the_environment_are_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("MASTER_PORT")
        with (
            pytest.raises(InvalidParameterError, match="of a rank, got no MASTER_PORT; start with torchrun"),
            joined(),
        ):
            pass
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "first")
        with pytest.raises(InvalidParameterError, match="Expected RANK in the environment as an integer, got 'first'"):
            joined("cpu").__enter__()
    for name, value, message in (
        ("MASTER_PORT", "x", "Expected MASTER_PORT in the environment as an integer, got 'x'"),
        ("MASTER_PORT", "99999", "MASTER_PORT in the environment from 1 to 65535, got 99999"),
        ("MASTER_PORT", "1" * 5000, "Expected MASTER_PORT in the environment as an integer"),
        ("RANK", "2", "RANK below WORLD_SIZE in the environment, got 2 and 2"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(InvalidParameterError, match=message):
                joined("cpu").__enter__()
    for seconds in (0, -1, float("nan"), float("inf"), 1e30):
        with pytest.raises(InvalidParameterError, match="Expected timeout_s above 0"):
            joined("cpu", timeout_s=seconds).__enter__()
    with pytest.raises(InvalidParameterError, match="Expected a device of auto, cpu, cuda for ranks, got 'tpu'"):
        joined("tpu").__enter__()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("auto", "cuda"):
        with pytest.raises(
            InvalidParameterError, match="got 2 ranks and 1 GPUs; start with torchrun --nproc-per-node 1"
        ):
            joined(device).__enter__()


@pytest.mark.usefixtures("rank_of_two")
def test_a_rank_that_does_not_come_is_not_waited_for_for_ever():
    with pytest.raises(LostRankError, match="Rank 0 of 2 did not find all the others at localhost within 1 s: "):
        joined("cpu", timeout_s=1).__enter__()
