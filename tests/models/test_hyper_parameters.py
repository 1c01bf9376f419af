"""Every hyper-parameter of every model does something, and no run option does. A new model is walked by itself."""

import inspect

import numpy as np
import pytest
import torch

from recvae import Interactions, Recommender, per_user_split
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidParameterError
from recvae.models.autoencoder.base import Autoencoder
from recvae.models.base.params import get_params, options, search_space, with_params
from recvae.models.base.spaces import Range

MODELS = {
    name: cls
    for name, cls in Recommender.registry.items()
    if cls.__module__.startswith("recvae.") and not inspect.isabstract(cls)
}
# small and quick, for models that have them
SMALL = {
    "epochs": 2,
    "iterations": 3,
    "batch_size": 20,
    "factors": 5,
    "latent_dim": 6,
    "hidden_dims": (9,),
    "hidden_dim": 9,
}
SMALL |= {"random_state": 0, "training__precision": "float32", "device": "cpu"}
# another value, for what has neither a search space nor choices, or where their first would not do
OTHER = {"values": "raw", "epochs": 1, "iterations": 2, "random_state": 1, "training__max_grad_norm": 0.01}
OTHER |= {"training__averaging": 2.0, "training__stop_epoch": 1, "batch_size": 30}
OTHER |= {"patience": 1, "form": "sparse", "neighbours": 3, "calibration_share": 0.5, "low_pass": 0.5}
OTHER |= {"encoder_passes": 2, "decoder_passes": 1}
OTHER |= {"output__unobserved": 0.5, "output__temperature": 0.5}
OTHER |= {
    "output__item_biases": "normal",
    "output__tied_embeddings": True,
    "training__impl": "sampled",
    "training__num_negatives": 20,
    "training__sampler": "uniform",
    "training__embedding_lr": 1.0,
}
# what a hyper-parameter needs in order to matter, and which of them need validation users
# from random weights validation has its ups and downs
START = {"training__initial_weights": "random"}
CONTEXT = {"patience": START | {"epochs": 20, "batch_size": 10, "learning_rate": 0.003}}
CONTEXT |= {name: {"learning_rate": 0.01} for name in ("epochs", "training__stop_epoch")}
# on so few users a join leaps, and the composite prior makes much of little
CONTEXT |= {"training__precision": {"calibration_share": 0.001, "gamma": 0.0}}
CONTEXT |= {"output__unobserved": {"likelihood": "gaussian"}, "output__temperature": {"output__logits": "cosine"}}
CONTEXT |= {"form": {"neighbours": 5}, "neighbours": {"form": "sparse"}}
# of 40 items, some stand for all; both ends of RecVAE are of one width where both its layers are
SAMPLED = {"training__impl": "sampled", "training__num_negatives": 10}
CONTEXT |= {"training__impl": {"training__num_negatives": 10}, "training__num_negatives": SAMPLED}
CONTEXT |= {
    "training__sampler": SAMPLED,
    "training__embedding_lr": SAMPLED,
    "output__tied_embeddings": {"hidden_dim": 6},
}
VALIDATED = {"patience"}
# declared for all models, nothing to those that see only which items somebody has
IDLE = {("Popularity", "values"), ("BPR", "values")}
# what a model cannot do, and the sentence that says so: the first layer of HVamp has gates
REFUSED = {("HVamp", "output__tied_embeddings"): "Expected an input layer and an output layer of one width"}


def walk(run_option):
    return [
        pytest.param(name, param, id=f"{name}-{param}")
        for name, cls in MODELS.items()
        for param, option in options(cls).items()
        if option.run_option is run_option
    ]


def other_value(cls, param, value):
    """A value of a hyper-parameter that is not `value`."""
    space = search_space(cls).get(param, [])
    choices = options(cls)[param].choices
    values = [space.low, space.high] if isinstance(space, Range) else [*space, *(choices or [])]
    values = [OTHER[param]] if param in OTHER else [known for known in values if known != value]
    assert values, f"give {param} of {cls.__name__} a search space, or another value in OTHER"
    return values[0]


@pytest.fixture(scope="module")
def counts():
    """Numbers of plays, so that how values are read matters."""
    plays = make_sample(n_users=60, n_items=40).interactions.matrix.copy()
    plays.data = np.random.default_rng(0).integers(1, 20, plays.nnz).astype(np.float32)
    return per_user_split(Interactions.from_matrix(plays), valid_share=0.2)


@pytest.fixture(scope="module")
def scores(counts):
    """(model, settings, validated) -> the scores of all training users, fitted once for each."""
    if any(cls.__module__ == "recvae.models.baselines" for cls in MODELS.values()):
        pytest.importorskip("implicit")
    known = {}

    def fitted_scores(cls, settings, validated):
        key = (cls, tuple(sorted(settings.items())), validated)
        if key not in known:
            model = with_params(cls(), settings).fit(counts.train, valid=counts.valid if validated else None)
            users, n_items = np.arange(counts.train.n_users), counts.train.n_items
            ids, found = model.recommend(users, counts.train.matrix, N=n_items, filter_already_liked_items=False)
            known[key] = np.full(found.shape, -np.inf)
            users, places = np.nonzero(ids >= 0)
            known[key][users, ids[users, places]] = found[users, places]
        return known[key]

    return fitted_scores


def settings_of(cls, param):
    given = SMALL | CONTEXT.get(param, {})
    defaults = get_params(cls(), deep=True)
    return {name: given.get(name, defaults[name]) for name in options(cls)}


@pytest.mark.parametrize(("name", "param"), walk(run_option=False))
def test_each_hyper_parameter_reaches_the_model(name, param, scores):
    cls, validated = MODELS[name], param in VALIDATED
    settings = settings_of(cls, param)
    changed = settings | {param: other_value(cls, param, settings[param])}
    if (name, param) in REFUSED:
        with pytest.raises(InvalidParameterError, match=REFUSED[name, param]):
            scores(cls, changed, validated)
        return
    one, other = (scores(cls, given, validated) for given in (settings, changed))
    assert np.array_equal(one, other) == ((name, param) in IDLE)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_settings_give_the_same_scores(name, counts, scores):
    """Or the test above could not tell a hyper-parameter from chance."""
    settings = settings_of(MODELS[name], "")
    again = {param: value for param, value in settings.items() if value is not None}  # a key of its own
    assert np.array_equal(scores(MODELS[name], settings, False), scores(MODELS[name], again, False))


@pytest.mark.parametrize("name", [name for name, cls in MODELS.items() if issubclass(cls, Autoencoder)])
def test_the_reference_and_the_chunked_likelihood_differ_by_rounding(name, scores):
    settings = settings_of(MODELS[name], "training__precision") | {"training__precision": "float32"}
    default, reference, chunked = (
        scores(MODELS[name], settings | {"training__impl": impl}, False) for impl in ("auto", "reference", "chunked")
    )
    assert np.array_equal(default, chunked)
    assert np.abs(reference - chunked).max() <= 1e-3 * np.abs(chunked).max()


# how far scores may be moved, and to what each option is set; one process alone has nobody to share with
ROUNDING = {"device": ("auto", 0.0), "training__precision": ("bfloat16", 0.02), "training__parallel": ("tensor", 0.0)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU draws other numbers")
@pytest.mark.parametrize(("name", "param"), walk(run_option=True))
def test_run_options_change_no_more_than_rounding(name, param, scores):
    settings = settings_of(MODELS[name], param)
    value, tolerance = ROUNDING[param]
    one, other = (scores(MODELS[name], given, False) for given in (settings, settings | {param: value}))
    assert np.abs(one - other).max() <= tolerance * np.abs(one).max()
