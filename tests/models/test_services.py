"""What a service does with a model: it forks after a warm-up, answers from threads, and changes the model meanwhile."""

import contextlib
import contextvars
import inspect
import io
import itertools
import multiprocessing
import sys
import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
import threadpoolctl
import torch
from scipy import sparse

from recvae import EASE, Holdout, HybridVAE, Interactions, MultVAE, Recommender, RecVAE, evaluate, load
from recvae.data.batches import Batch
from recvae.errors import NotFittedError
from recvae.evaluation import evaluate as evaluation
from recvae.models.base import UnknownItemsWarning
from recvae.models.base.state import changes, reads, snapshot
from recvae.models.baselines import ALS, BPR, ItemKNN, implicit_library
from recvae.models.baselines.implicit_library import one_blas_thread
from recvae.nn.layers import reuse_workspace, workspace
from recvae.utils.threads import lazy

SMALL = {"latent_dim": 8, "epochs": 1, "batch_size": 350, "random_state": 0}
MODELS = {
    "MultVAE": lambda: MultVAE(hidden_dims=(16,), **SMALL),
    "RecVAE": lambda: RecVAE(hidden_dim=16, depth=2, **SMALL),
    "HybridVAE": lambda: HybridVAE(hidden_dim=16, depth=2, l2=100.0, **SMALL),
    "EASE": lambda: EASE(),
    "ALS": lambda: ALS(factors=16, iterations=1, random_state=0),
    "ItemKNN": lambda: ItemKNN(),
    "BPR": lambda: BPR(factors=8, iterations=1, random_state=0),
}
SECONDS = 30  # after which a child counts as one that hangs
USERS = 700  # enough for products by several threads


@pytest.fixture(scope="module")
def data():
    rows = sparse.random(USERS, 300, density=0.03, random_state=0, format="csr", dtype=np.float32)
    rows.data[:] = 1
    return Interactions.from_matrix(rows, item_ids=[f"i{n}" for n in range(300)])


def fork(work, *arguments):
    """The exit status of a child that does this work; None where it hangs."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    child.join(SECONDS)
    hangs = child.is_alive()
    child.kill()
    child.join()
    return None if hangs else child.exitcode


def use(model, data):
    """All that a worker may do with a model of its parent."""
    model.recommend(0, data.matrix[[0]])
    ids, _ = model.recommend(np.arange(USERS), data.matrix)
    if not isinstance(model, BPR):
        table = model.recommend_for({"ann": ["i1", "i2"]}, N=3)
        assert table.to_pandas().shape[0] == 3
    if "partial_fit" in model.abilities():
        model.partial_fit(data, show_progress=False)
    model.fit(data, show_progress=False)
    return ids


@pytest.mark.parametrize("name", MODELS)
def test_a_child_of_a_fork_uses_what_its_parent_has_used(name, data, two_threads):
    model = MODELS[name]().fit(data, show_progress=False)
    expected = use(model, data)

    def work():
        assert torch.get_num_threads() == 1
        assert (use(model, data) == expected).mean() > 0.999

    assert fork(work) == 0
    assert torch.get_num_threads() == 2  # the parent is as it was


@pytest.mark.parametrize(("name", "mode"), [("HybridVAE", torch.inference_mode), ("MultVAE", torch.no_grad)])
def test_a_handler_without_gradients_may_train(name, mode, data):
    """What it has fitted or loaded can be trained further outside."""
    expected = use(MODELS[name]().fit(data, show_progress=False), data)
    with mode():
        model = MODELS[name]().fit(data, show_progress=False)
        assert (use(model, data) == expected).all()
        file = io.BytesIO()
        model.save(file)
        file.seek(0)
        loaded = load(file)
    for trained in (model, loaded):
        trained.fit(data, show_progress=False)
        assert (use(trained, data) == expected).all()


def test_threads_of_a_child_may_have_more_threads(data, two_threads):
    model = MODELS["MultVAE"]().fit(data, show_progress=False)

    def work():
        def more():
            torch.set_num_threads(2)
            model.recommend(np.arange(USERS), data.matrix)

        for _ in range(2):
            thread = threading.Thread(target=more)
            thread.start()
            thread.join()
        model.recommend(np.arange(USERS), data.matrix)

    assert fork(work) == 0


def test_a_fork_amid_the_work_of_other_threads(data, two_threads):
    models = [MODELS[name]().fit(data, show_progress=False) for name in ("MultVAE", "ALS")]
    stop = threading.Event()

    def serve(model):
        while not stop.is_set():
            model.recommend(np.arange(200), data.matrix[:200])

    def learn():
        while not stop.is_set():
            models[0].partial_fit(data, show_progress=False)

    threads = [threading.Thread(target=serve, args=[model]) for model in models] + [threading.Thread(target=learn)]
    for thread in threads:
        thread.start()

    def work():
        for model in models:
            use(model, data)

    try:
        assert [fork(work) for _ in range(2)] == [0, 0]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_fork_while_a_lazy_value_is_computed_or_a_model_changes(data):
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        @lazy
        def value(self):
            entered.set()
            return leave.wait(SECONDS)

    def stop(*_):
        entered.set()
        leave.wait(SECONDS)

    model = MODELS["MultVAE"]().fit(data, show_progress=False)
    for held in (lambda: Slow().value, lambda: model.partial_fit(data, callback=stop, show_progress=False)):
        entered.clear()
        leave.clear()
        thread = threading.Thread(target=held)
        thread.start()
        assert entered.wait(SECONDS)

        def work():
            leave.set()
            assert Slow().value
            model.partial_fit(data, show_progress=False)

        assert fork(work) == 0
        leave.set()
        thread.join()


def test_a_lazy_value_is_computed_once_and_documented():
    batch = Batch(torch.tensor([1, 2, 3]), torch.ones(3), torch.tensor([0, 1, 3]))
    assert batch.rows.tolist() == [0, 1, 1]
    assert batch.rows is batch.rows
    assert "Row of each event" in Batch.rows.__doc__


def registered():
    """Warnings that Python keeps, of all modules."""
    found = (getattr(module, "__warningregistry__", None) for module in list(sys.modules.values()))
    return sum(len(registry) for registry in found if isinstance(registry, dict))


@pytest.mark.parametrize("action", ["default", "always", "module", "once"])
def test_warnings_do_not_pile_up(action, data):
    model = EASE().fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        warnings.showwarning = lambda *_, **__: None
        before = registered()
        for request in range(20):
            model.recommend_for({f"u{request}": ["i1", f"new {request}"]})
            model.recommend_for([["i1"] + [f"new {n}" for n in range(request)]])
        assert registered() - before <= 4


def test_each_warning_counts(data):
    model = EASE().fit(data)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for n in (1, 2, 3):
            model.recommend_for([["i1"] + [f"new {k}" for k in range(n)]])
    assert [warning.category for warning in said] == [UnknownItemsWarning] * 3
    assert [warning.message.unknown.events for warning in said] == [1, 2, 3]
    assert said[2].message.unknown.examples == ("new 0", "new 1", "new 2")


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def two_blas_threads():
    with threadpoolctl.threadpool_limits(2, "blas"):
        yield blas_threads()


def test_blas_has_its_threads_back_when_the_last_is_done(two_blas_threads):
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    with pytest.raises(ValueError, match="enough"), one_blas_thread():
        raise ValueError("enough")
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == two_blas_threads


def test_blas_has_its_threads_back_after_requests_from_threads(data, two_blas_threads):
    model = MODELS["ALS"]().fit(data, show_progress=False)
    expected = model.recommend(np.arange(20), data.matrix[:20])
    differ = []

    def serve():
        for _ in range(30):
            ids, _ = model.recommend(np.arange(20), data.matrix[:20])
            differ.append((ids != expected[0]).mean() > 0.01)
            with pytest.raises(ValueError, match="user_items must contain"):
                model.recommend([0, 1], data.matrix[0])

    run([serve] * 4)
    assert len(differ) == 120
    assert not any(differ)
    assert blas_threads() == two_blas_threads
    assert implicit_library._limit.users == 0


def test_a_child_forked_within_the_limit_has_one_of_its_own(data, two_blas_threads):
    def work():
        with one_blas_thread():
            assert implicit_library._limit.users == 1
        assert implicit_library._limit.users == 0

    with one_blas_thread():
        assert fork(work) == 0
        assert implicit_library._limit.users == 1
    assert blas_threads() == two_blas_threads


def run(works):
    """All of these at once, each in a thread; what one raises is raised."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("name", ["MultVAE", "HybridVAE"])
def test_readers_see_the_old_model_or_the_new_one(name, data):
    """Each table is that of one of the models that there were, while items are added and users move."""
    model = MODELS[name]().fit(data, show_progress=False)
    stop, seen = threading.Event(), []

    def answer():
        table = model.recommend_for({"ann": ["i1", "i2", "i3"], "bob": ["i7"]}, N=5)
        return tuple(table["item"].to_pylist()), tuple(table["score"].to_pylist())

    known = {answer()}

    def read():
        while not stop.is_set():
            seen.append(answer())
            model.similar_items(3)
            model.save(io.BytesIO())
            with contextlib.suppress(NotFittedError):  # an index of users is to be given again after partial_fit
                model.similar_users(3)

    def change():
        try:
            deadline = time.monotonic() + 0.5
            for n in itertools.count():
                grown = widened(data.matrix, model.n_items_ + 1)
                model.partial_fit(grown, epochs=n % 2, item_ids=[f"new {n}"], show_progress=False)
                known.add(answer())
                model.index_users(grown)
                model.partial_fit_users([0, 1], grown[:2])
                if n >= 3 and time.monotonic() > deadline:
                    break
            model.fit(data, show_progress=False)
            known.add(answer())
        finally:
            stop.set()

    run([read] * 4 + [change])
    assert len(seen) > 10
    assert set(seen) <= known


def widened(rows, n_items):
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], n_items))


CHANGE = {"fit", "partial_fit", "partial_fit_users", "index_users", "add_items", "set_params"}
MARKS = {reads(lambda self: None).__code__: "reads", changes(lambda self: None).__code__: "changes"}


MODEL_CLASSES = [
    cls
    for cls in Recommender.registry.values()
    if issubclass(cls, Recommender) and cls.__module__.startswith("recvae.")
]


@pytest.mark.parametrize("cls", MODEL_CLASSES, ids=lambda cls: cls.__name__)
def test_each_verb_reads_or_changes_one_state(cls):
    public = {
        name: verb for name, verb in inspect.getmembers_static(cls, inspect.isfunction) if not name.startswith("_")
    }
    assert len(public) >= len(CHANGE) + 10
    for name, verb in public.items():
        marks = []
        while verb is not None:
            marks += [MARKS[verb.__code__]] if verb.__code__ in MARKS else []
            verb = verb.__dict__.get("__wrapped__")
        assert marks == ["changes" if name in CHANGE else "reads"], name


def test_hyper_parameters_of_a_snapshot_stay(data):
    model = EASE(l2=100.0).fit(data)
    now = snapshot(model)
    model.set_params(l2=5.0, values="raw")
    assert (now.l2, now.values, now.get_params()["l2"]) == (100.0, None, 100.0)
    assert (model.l2, model.values, model.get_params()["l2"]) == (5.0, "raw", 5.0)


def test_an_evaluation_is_of_one_model(data, monkeypatch):
    """Between its blocks of users, another thread may let the model grow."""
    model = MODELS["MultVAE"]().fit(data.matrix, show_progress=False)
    half = sparse.csr_matrix(data.matrix.multiply(np.arange(300) % 2))
    holdout = Holdout(half, sparse.csr_matrix(data.matrix - half))
    expected = evaluate(model, holdout, ["ndcg@10"], block_users=100)

    def find_hits(*found):
        model.partial_fit(widened(data.matrix, model.n_items_ + 1), epochs=1, show_progress=False)
        return hits(*found)

    hits = evaluation.find_hits
    monkeypatch.setattr(evaluation, "find_hits", find_hits)
    found = evaluate(model, holdout, ["ndcg@10"], block_users=100)
    assert found["ndcg@10"].mean == expected["ndcg@10"].mean
    assert model.n_items_ == 307


def test_changes_wait_for_one_another(data):
    model = MODELS["MultVAE"]().fit(data, show_progress=False)
    names = [f"new {n}" for n in range(6)]

    def grow(name):
        rows = Interactions.from_matrix(widened(data.matrix, 301), item_ids=[*data.item_ids, name])
        model.partial_fit(rows, epochs=0, show_progress=False)

    run([partial(grow, name) for name in names])
    assert sorted(model.item_ids_[300:]) == names


@pytest.mark.parametrize("name", MODELS)
def test_threads_get_the_lists_of_one_thread(name, data):
    model = MODELS[name]().fit(data, show_progress=False)
    blocks = [slice(start, start + size) for start, size in ((0, 1), (10, 300), (20, 5))]
    more = {"explore": 1.0, "random_state": 3} if "encode" in model.abilities() else {}

    def answer(rows, **options):
        return model.recommend(np.arange(rows.start, rows.stop), data.matrix[rows], N=20, **options)

    expected = [(answer(rows), answer(rows, **more)) for rows in blocks]
    wrong = []

    def serve(turn):
        for _ in range(2):
            for rows, known in zip(blocks[turn:] + blocks[:turn], expected[turn:] + expected[:turn], strict=True):
                found = answer(rows), answer(rows, **more)
                wrong.extend((one[0] != two[0]).mean() > 0.001 for one, two in zip(found, known, strict=True))

    run([partial(serve, turn) for turn in range(4)])
    assert len(wrong) == 4 * 2 * 3 * 2
    assert not any(wrong)


def test_a_copied_context_does_not_share_the_memory_of_steps():
    with reuse_workspace():
        mine = workspace("x", (4,), torch.float32, torch.device("cpu"))
        again = workspace("x", (4,), torch.float32, torch.device("cpu"))
        assert mine.data_ptr() == again.data_ptr()
        found, context = [], contextvars.copy_context()
        thread = threading.Thread(
            target=lambda: found.append(context.run(workspace, "x", (4,), torch.float32, torch.device("cpu")))
        )
        thread.start()
        thread.join()
        assert found[0].data_ptr() != mine.data_ptr()
