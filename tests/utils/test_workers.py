"""Worker threads: pieces in order, errors, torch's settings of each thread, and the choice of the number of cores."""

import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from recvae.utils import workers
from recvae.utils.workers import CoreTuner, Workers, cut, map_pieces, one_thread, usable_cores, use_workers


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_results_are_in_the_order_of_the_pieces(cores):
    with Workers(cores) as workers:
        for n in (0, 1, 2, 7, 50):
            assert workers.map(lambda k: k * k, range(n)) == [k * k for k in range(n)]


def test_pieces_are_shared_among_threads_each_with_one_torch_thread(two_threads):
    barrier = threading.Barrier(2, timeout=30)

    def piece(_):
        barrier.wait()  # passes only if two threads are here at once
        return threading.get_ident(), torch.get_num_threads()

    with Workers(2) as workers:
        found = workers.map(piece, range(2))
        assert torch.get_num_threads() == 1
    assert len({ident for ident, _ in found}) == 2
    assert [threads for _, threads in found] == [1, 1]
    assert torch.get_num_threads() == 2


def test_the_number_of_other_threads_stays_also_after_an_error(two_threads):
    seen, inside, over = [], threading.Event(), threading.Event()

    def other():
        inside.wait(30)
        seen.append(torch.get_num_threads())
        over.set()

    thread = threading.Thread(target=other)
    thread.start()

    def fails(k):
        inside.set()
        over.wait(30)
        return 1 // k

    with pytest.raises(ZeroDivisionError), Workers(2) as workers:
        workers.map(fails, range(4))
    thread.join()
    assert seen == [2]
    assert torch.get_num_threads() == 2


def test_the_first_error_in_the_order_of_the_pieces_is_raised():
    def piece(k):
        if k in (2, 5):
            time.sleep(0.02 if k == 2 else 0)
            raise KeyError(k)

    with Workers(2) as workers:
        with pytest.raises(KeyError, match="2"):
            workers.map(piece, range(8))
        assert workers.map(str, range(3)) == ["0", "1", "2"]  # it can be used again


def test_a_piece_has_torchs_modes_of_the_caller():
    def settings(_):
        time.sleep(0.001)  # so that both threads take some
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()

    with Workers(2) as workers:
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert set(workers.map(settings, range(8))) == {(grad, False, False)}
        with torch.autocast("cpu", torch.bfloat16):
            assert set(workers.map(settings, range(8))) == {(True, True, False)}
        with torch.inference_mode():
            assert set(workers.map(settings, range(8))) == {(False, False, True)}


def test_after_an_error_no_further_piece_is_computed():
    computed = []

    def piece(number):
        computed.append(number)
        time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        workers.map(piece, range(50))
    assert len(computed) <= 2


def test_a_second_interrupt_leaves_no_workers_behind(two_threads, monkeypatch):
    monkeypatch.setattr(threading.Thread, "join", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    used, before = Workers(2), set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), used:
        used.map(abs, range(4))
    monkeypatch.undo()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert workers._current.get() is None
    assert torch.get_num_threads() == 2


def test_an_interrupt_while_a_worker_starts_leaves_none_behind(monkeypatch):
    start, before = threading.Thread.start, set(threading.enumerate())

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Workers(2) as used:
        used.map(abs, range(4))
    assert set(threading.enumerate()) == before


def test_an_interrupt_before_a_worker_has_started_is_the_error_that_is_raised(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), Workers(2) as used:
        used.map(abs, range(4))


def test_an_interrupt_while_others_compute_ends_them_too(monkeypatch):
    """The caller has no pieces left and waits; the other thread ends with its piece."""
    computed, jobs = [], []

    def piece(number):
        computed.append(number)
        deadline = time.monotonic() + 5
        while not (jobs and jobs[0].over) and time.monotonic() < deadline:
            time.sleep(0.001)

    class Interrupted(workers._Job):
        def run(self):
            if threading.current_thread() is not threading.main_thread():
                super().run()

        def results(self):
            jobs.append(self)
            while not computed:
                time.sleep(0.001)
            raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_Job", Interrupted)
    with pytest.raises(KeyboardInterrupt), Workers(2) as used:
        used.map(piece, range(3))
    assert computed == [0]


def test_a_thread_with_a_copy_of_the_context_has_workers_of_its_own():
    """As `asyncio.to_thread` and web servers make one."""
    with Workers(2) as outer:
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:

            def inner():
                assert map_pieces(str, range(3)) == ["0", "1", "2"]
                with use_workers() as own:
                    return own

            assert pool.submit(context.run, inner).result() is not outer
        with use_workers() as own:
            assert own is outer


def test_no_thread_is_left_when_the_context_ends():
    before = threading.active_count()
    with Workers(3) as workers:
        workers.map(str, range(9))
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_map_within_a_piece_is_computed_by_its_thread():
    with Workers(2):
        found = map_pieces(lambda _: set(map_pieces(lambda _: threading.get_ident(), range(4))), range(4))
    assert all(len(idents) == 1 for idents in found)


def test_workers_of_a_context_are_used_by_nested_ones():
    with Workers(2) as outer, use_workers() as inner:
        assert inner is outer


@pytest.mark.parametrize("least", [1, 48, 256])
def test_a_cut_covers_everything_in_pieces_that_are_large_enough(least):
    for n in (0, 1, least, 2 * least, 17 * least + 3, 100 * least):
        pieces = cut(n, least)
        assert [k for piece in pieces for k in range(piece.start, piece.stop)] == list(range(n))
        assert len(pieces) <= 8
        assert len(pieces) == 1 or min(piece.stop - piece.start for piece in pieces) >= least


def test_torchs_number_of_threads_limits_the_cores(two_threads):
    with one_thread():
        assert usable_cores()[0] == 1


class Machine:
    """A clock, and units that take longer or shorter with more cores."""

    def __init__(self, cores):
        self.now = 0.0
        self.tuner = CoreTuner(cores, clock=lambda: self.now)

    def run(self, seconds_of, units):
        """Seconds of units, in all, and the number of cores at the end."""
        started = self.now
        for _ in range(units):
            took = seconds_of(self.tuner.count)
            self.now += took
            self.tuner.record(took)
        return self.now - started


def test_with_idle_cores_nearly_all_units_use_them():
    machine = Machine(2)
    took = machine.run(lambda cores: 0.02 / cores**0.8, 1000)
    assert machine.tuner.count == 2
    assert took < 1.02 * 1000 * 0.02 / 2**0.8


def test_next_to_a_neighbour_that_makes_two_cores_slower_one_is_used():
    machine = Machine(2)
    took = machine.run(lambda cores: 0.02 * (1 if cores == 1 else 2), 1000)
    assert machine.tuner.count == 1
    assert took < 1.05 * 1000 * 0.02


def test_when_the_neighbour_comes_and_goes_the_number_follows():
    machine = Machine(2)

    def quiet(cores):
        return 0.02 / cores**0.8

    def busy(cores):
        return 0.02 * (1 if cores == 1 else 2)

    machine.run(quiet, 500)
    assert machine.tuner.counts[machine.tuner.index] == 2
    machine.run(busy, 100)
    assert machine.tuner.counts[machine.tuner.index] == 1
    machine.run(quiet, 2000)
    assert machine.tuner.counts[machine.tuner.index] == 2


def test_units_of_another_kind_are_not_compared_with_those_before():
    machine = Machine(2)
    machine.run(lambda cores: 0.02 * (1 if cores == 1 else 2), 100)  # next to a neighbour
    machine.tuner.begin()
    assert machine.tuner.count == 1
    counts = []

    def four_times_as_long(cores):
        counts.append(cores)
        return 0.08 * (1 if cores == 1 else 2)

    machine.run(four_times_as_long, 100)
    assert counts.count(2) <= 4  # one look soon after the beginning, and later ones


def test_of_many_cores_the_number_is_found_by_halves():
    machine = Machine(16)
    machine.run(lambda cores: 0.02 / min(cores, 4) + 0.0005 * cores, 2000)
    assert machine.tuner.counts[machine.tuner.index] == 4


@pytest.mark.skipif(not workers._sched_getcpu(), reason="the system does not say which core runs a thread")
def test_a_worker_leaves_the_core_of_the_thread_that_it_works_for():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is a single core")
    core, after = min(allowed), []

    def work():
        os.sched_setaffinity(0, {core})
        busy = {core}
        workers._keep_apart(busy, allowed)
        after.extend([os.sched_getaffinity(0), busy])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert after[0] == allowed - {core}
    assert len(after[1]) == 2
    assert os.sched_getaffinity(0) == allowed  # that of the caller stays


def test_mkl_computes_in_one_thread_where_torch_does(two_threads):
    number = workers._mkl_threads()
    if number is None:
        pytest.skip("torch has no MKL here")
    before = number(2)  # returns the number before
    number(before)
    with one_thread():
        assert number(1) == 1
    assert number(before) == before
