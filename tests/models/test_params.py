import inspect
import pickle
import re

import numpy as np
import pytest

from recvae import MultDAE, MultVAE, OutputOptions, Recommender
from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.models.base.params import check_params, get_params, options, with_params
from recvae.models.baselines import ALS, ItemKNN, Popularity
from recvae.utils.checks import check_fraction, check_integer

MODELS = [MultVAE, MultDAE, ALS, ItemKNN, Popularity]


@pytest.mark.parametrize("model", MODELS)
def test_constructors_take_keywords_and_only_store(model):
    signature = inspect.signature(model).parameters
    assert list(signature) == list(get_params(model()))
    for parameter in signature.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    nonsense = {name: object() for name in signature}
    assert get_params(model(**nonsense)) == nonsense
    with pytest.raises(TypeError):
        model(no_such_parameter=1)


@pytest.mark.parametrize("model", MODELS)
def test_the_docstring_has_each_parameter_with_its_default(model):
    for name, value in get_params(model()).items():
        assert re.search(rf"^    {name} : .+, default {re.escape(repr(value))}\n {{8}}\S", model.__doc__, re.MULTILINE)
    assert not model.__doc__.startswith(f"{model.__name__}(")


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_in_range(model):
    check_params(model())


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"latent_dim": 0},
            InvalidParameterError,
            r"MultVAE\(latent_dim=0\): expected a value of at least 1 that 64 bits can hold",
        ),
        ({"latent_dim": 2.5}, InvalidTypeError, "expected an integer, got float"),
        ({"latent_dim": True}, InvalidTypeError, "expected an integer, got bool"),
        ({"latent_dim": "8"}, InvalidTypeError, "expected an integer, got str"),
        ({"kl_anneal": None}, InvalidTypeError, "expected a number, got NoneType"),
        ({"hidden_dims": 600}, InvalidTypeError, r"a tuple of integers such as \(600,\), got int"),
        ({"hidden_dims": (600, 0)}, InvalidParameterError, "of at least 1"),
        ({"hidden_dims": (1.5,)}, InvalidTypeError, "got float in it"),
        ({"hidden_dims": (True,)}, InvalidTypeError, "got bool in it"),
        ({"random_state": 2**70}, InvalidParameterError, "random_state"),
        ({"dropout": 1.0}, InvalidParameterError, r"from 0 to 0\.99"),
        ({"dropout": float("nan")}, InvalidParameterError, r"from 0 to 0\.99"),
        ({"kl_cap": -0.1}, InvalidParameterError, "of at least 0 that float32"),
        ({"kl_schedule": "linaer"}, UnknownNameError, "kl_schedule of MultVAE called 'linaer'; did you mean linear"),
        ({"learning_rate": "fast"}, InvalidTypeError, "expected a number, got str"),
        ({"epochs": 0}, InvalidParameterError, "epochs=0"),
        ({"patience": 0}, InvalidParameterError, "patience=0"),
        ({"random_state": -1}, InvalidParameterError, "random_state=-1"),
        (
            {"learning_rate": float("inf")},
            InvalidParameterError,
            r"=inf\): expected a value of at least 0 that",
        ),
        ({"learning_rate": 10**400}, InvalidParameterError, "expected a value of at least 0 that float32 can hold"),
        ({"learning_rate": 1e39}, InvalidParameterError, "expected a value of at least 0 that float32 can hold"),
        ({"epochs": 10**5000}, InvalidParameterError, "int too long or too deep to be shown"),
        ({"output": OutputOptions(temperature=-float("inf"))}, InvalidParameterError, r"of at least 0\.001"),
        ({"likelihood": np.array(["a", "b"])}, UnknownNameError, "no likelihood of MultVAE called"),
        ({"values": "squared"}, UnknownNameError, "known are binary, log1p, raw"),
    ],
)
def test_what_is_out_of_range_is_named_at_fit(params, error, message, checkerboard):
    with pytest.raises(error, match=message):
        MultVAE(**params).fit(checkerboard)


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), -float("inf"), 10**400, 1e39, np.float32("inf")], ids=range(6)
)
@pytest.mark.parametrize(
    "model",
    [m for m in Recommender.registry.values() if m.__module__.startswith("recvae.") and not inspect.isabstract(m)],
)
def test_no_number_is_out_of_bounds(model, number):
    for name, option in options(model).items():
        if option.kind in (int, float):
            with pytest.raises((InvalidParameterError, InvalidTypeError)) as said:
                check_params(with_params(model(), {name: number}))
            assert str(said.value).isprintable()


@pytest.mark.parametrize("value", [10**5000, "a\nb", float("nan"), np.ones((3, 3)), None], ids=range(5))
def test_numbers_that_are_asked_for_are_named_on_one_line(value):
    for check in (lambda: check_integer("N", value, 1, 9), lambda: check_fraction("share", value)):
        with pytest.raises(InvalidParameterError) as said:
            check()
        assert str(said.value).isprintable()


def test_numpy_s_numbers_are_numbers(checkerboard):
    """2 * np.uint8(200) is 144, without an error."""
    model = MultVAE(epochs=np.int64(1), batch_size=np.int32(7), latent_dim=np.uint8(200), hidden_dims=(np.int8(100),))
    model.set_params(learning_rate=np.float32(0.1), training__impl=np.str_("chunked")).fit(checkerboard)
    assert model.network_.decoder.latent_dim == 200
    assert [type(number) for number in (model.epochs, model.latent_dim, *model.hidden_dims)] == 3 * [int]


def test_errors_travel_between_processes():
    for error in (UnknownNameError.among("model", "x", ["y"]), InvalidParameterError("A sentence.")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_unknown_device_is_named(checkerboard):
    for device in ("abacus", "meta", "cpu\ncpu"):
        with pytest.raises(InvalidParameterError, match="device") as said:
            MultVAE(device=device).fit(checkerboard)
        assert str(said.value).isprintable()
