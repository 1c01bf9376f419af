"""The code stays as easy to enter as its figures say; `python -m tests.structure` prints them."""

import pytest

from tests import structure

# name -> no more than
LIMITS = {
    "top": 16,
    # one of them the optimizer, whose blocks several cores update, and one for bfloat16, where the hardware has it
    "step": 10,
    "hops": 3,
    "likelihood": 2,
    "mult-vae": 6,
    "ease": 4,
    "loaded": 30,
    "steps": 0,
    "parameters": 16,
    "load_split": 1,
    "run_benchmark": 1,
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_figure_is_within_its_limit(name):
    measure, words = structure.figures()[name]
    value = measure()
    count = value if isinstance(value, int) else len(value)
    assert count or not LIMITS[name], f"nothing was measured: {words}"
    assert count <= LIMITS[name], f"{count} {words}: {value}"


def test_a_closed_form_loads_no_network():
    rooms = {module.split(".")[1] for module in structure.modules_after_ease() if "." in module}
    assert not rooms & {"nn", "training", "distributed"}
