"""The display of a training: in a terminal of 80 columns, in a notebook, and nowhere else."""

import io
import sys

import pytest
from rich.console import Console

from recvae import HybridVAE, MultDAE, MultVAE
from recvae.training.callbacks import Epoch
from recvae.training.progress import Live
from recvae.utils import progress
from recvae.utils.progress import TimeLeftColumn, track

SMALL = {"latent_dim": 4, "epochs": 3, "random_state": 0}


@pytest.fixture
def terminal(monkeypatch):
    """What is written to a terminal of 80 columns."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, force_jupyter=False, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    return screen


@pytest.fixture
def cell(monkeypatch):
    """The outputs of a notebook's cell: what each was, drawing by drawing."""
    outputs = []

    class Output:
        def __init__(self):
            self.drawings = []
            outputs.append(self.drawings)

        def update(self, content, raw):
            assert raw
            self.drawings.append(content["text/plain"])

    class Shell:
        @staticmethod
        def display(content, raw, display_id):
            assert display_id
            output = Output()
            output.update(content, raw)
            return output

    plain = Console

    def console(**options):
        return plain(force_jupyter=True) if options.get("stderr") else plain(**options)

    monkeypatch.setattr(progress, "Console", console)
    monkeypatch.setitem(sys.modules, "IPython.display", Shell)
    return outputs


def test_a_terminal_sees_both_terms_the_metric_and_the_speed(terminal, split):
    MultVAE(hidden_dims=(8,), **SMALL).fit(split.train, valid=split.valid)
    text = terminal.getvalue()
    for shown in ("MultVAE, epoch 1/3", " users/s", " left", "loss ", "reconstruction ", "KL ", "beta ", "ndcg@100 0."):
        assert shown in text
    assert "MultVAE: 3 epochs in 0:00:0" in text
    assert "kept epoch" in text


def test_no_line_is_wider_than_the_terminal(terminal):
    with Live("HybridVAE (kl_cap)", 1000, 500, 3_000_000, "recall_full@100") as live:
        live._epoch_began -= 100  # seconds
        live.on_step_end(1000, 499)
        live.on_epoch_end(Epoch(1000, 123456.7, 12345.6, 135802.3, 0.005, 0.4567, 10.0, 0.4567))
        live._bar.refresh()
        drawn = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
        lines = drawn.render_lines(live._bar.get_renderable(), pad=False)
    texts = ["".join(part.text for part in line) for line in lines]
    assert len(texts) == 3  # a bar and two lines of figures: nothing wraps
    assert all(len(text) <= 80 for text in texts)
    assert "epoch 1000/1000" in texts[0]
    assert "users/s" in texts[0]
    assert " ".join(texts[1].split()) == "loss 135802.30 reconstruction 123456.70 KL 12345.60 beta 0.005"
    assert " ".join(texts[2].split()) == "recall_full@100 0.4567 on validation users best 0.4567 in epoch 1000"


def test_it_moves_within_an_epoch(terminal):
    with Live("A", 2, 4, 100, "ndcg@100") as live:
        shares = []
        for step in (1, 2, 3, 4):
            live.on_step_end(1, step)
            shares.append(live._bar.tasks[0].percentage)
        assert shares == [12.5, 25, 37.5, 50]


def test_the_speed_is_that_of_this_run(terminal, monkeypatch):
    """A fit that resumes within an epoch did not make the steps before."""
    clock = iter(range(100))
    monkeypatch.setattr("recvae.training.progress.time.perf_counter", lambda: next(clock))
    with Live("A", 3, 10, 100, "ndcg@100") as live:

        def after(epoch, step, seconds):
            live._epoch_began = next(clock) + 1 - seconds
            live.on_step_end(epoch, step)
            return live._bar.tasks[0].fields["note"], live._bar.tasks[0].completed

        assert after(2, 8, 2) == ("5 users/s", 18)  # one step of ten users in two seconds, not eight
        assert after(2, 9, 4) == ("5 users/s", 19)
        live._bar.tasks[0].start_time = live._bar.get_time() - 6
        assert (
            str(TimeLeftColumn().render(live._bar.tasks[0])) == "0:00:33 left"
        )  # eleven more, of which two took six seconds
        live.on_epoch_end(Epoch(2, 1.0, 0.0, 1.0, 0.0, None, 1.0, None))
        assert after(3, 4, 4) == ("10 users/s", 24)


def test_a_deterministic_autoencoder_has_one_term(terminal, split):
    MultDAE(**SMALL).fit(split.train)
    assert "loss " in terminal.getvalue()
    assert "KL" not in terminal.getvalue()
    assert "ndcg" not in terminal.getvalue()


def test_the_linear_path_is_seen_before_the_network(terminal, split):
    HybridVAE(hidden_dim=8, depth=2, **SMALL).fit(split.train)
    text = terminal.getvalue()
    assert 0 <= text.index("HybridVAE, linear path, exponents of items") < text.index("HybridVAE, epoch 1/3")


def test_a_notebook_gets_one_output_that_stays(cell, split):
    MultVAE(hidden_dims=(8,), **SMALL).fit(split.train, valid=split.valid)
    (drawings,) = cell
    assert len(drawings) < 20  # not one for each step
    assert "MultVAE, epoch 3/3" in drawings[-1]
    assert "users/s" in drawings[-1]
    assert "reconstruction" in drawings[-1].split("\n")[1]
    assert "best 0." in drawings[-1].split("\n")[2]
    list(track(range(5), "counting"))
    assert "5/5" in cell[1][-1]


def test_elsewhere_nothing_is_drawn(split, capfd):
    MultVAE(hidden_dims=(8,), **SMALL).fit(split.train, valid=split.valid)
    assert capfd.readouterr() == ("", "")


def test_nobody_who_asked_for_silence_is_shown_anything(terminal, cell, split):
    MultVAE(hidden_dims=(8,), **SMALL).fit(split.train, show_progress=False)
    assert terminal.getvalue() == ""
    assert cell == []


def test_what_a_callback_prints_goes_where_standard_output_goes(terminal, split, capsys):
    MultDAE(**SMALL).fit(split.train, callbacks=[print])
    assert capsys.readouterr().out.count("reconstruction") == 3  # a line for each epoch
    assert "reconstruction" not in terminal.getvalue()
