import pytest

from recvae import MultVAE, Recommender
from recvae.errors import InvalidParameterError
from recvae.models.base.params import (
    check_params,
    get_params,
    hyper,
    param_text,
    parameters,
    parse_param,
    search_space,
    with_params,
)
from recvae.models.base.spaces import Range, integers, log, uniform

KNOWN = {name: cls for name, cls in Recommender.registry.items() if cls.__module__.startswith("recvae.")}


@pytest.mark.parametrize("name", KNOWN)
def test_all_of_a_space_can_be_fitted_with(name, checkerboard):
    """The ends of ranges and the choices pass the checks of `fit`, and come back from the text of a command line."""
    cls = KNOWN[name]
    if getattr(cls, "__abstractmethods__", None):
        pytest.skip("a base")
    for param, space in search_space(cls).items():
        for value in [space.low, space.high] if isinstance(space, Range) else space:
            model = with_params(cls(), {param: value})
            check_params(model)
            assert parse_param(model, param, param_text(value)) == value


def test_what_a_space_must_be():
    for wrong in (log(0, 1), uniform(1, 0), uniform(0, 2), log(0.3, 1), [0.1, 0.3]):
        with pytest.raises(InvalidParameterError, match=r"default 0\.2 included"):
            hyper(0.2, "a share", low=0, high=1, search=wrong)
    with pytest.raises(InvalidParameterError, match="default None included"):
        hyper(None, "a width", kind=int, optional=True, search=integers(1, 5))


def test_a_subclass_narrows_a_space():
    @parameters
    class Narrow(MultVAE):
        dropout: float = hyper(0.3, "less of it", low=0, high=0.99, search=uniform(0.2, 0.4))

    del Recommender.registry["Narrow"]
    assert search_space(Narrow) == search_space(MultVAE) | {"dropout": uniform(0.2, 0.4)}
    assert get_params(Narrow())["dropout"] == 0.3


def test_a_study_knows_a_space_by_a_text_that_stays():
    assert str(log(1e-4, 1e-2)) == "Range(low=0.0001, high=0.01, by_ratio=True, whole=False)"
    assert str(integers(1, 5)) == "Range(low=1, high=5, by_ratio=True, whole=True)"
