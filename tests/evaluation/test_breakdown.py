"""Where a model is right, against sums by hand."""

import dataclasses
import itertools

import numpy as np
import pytest

from recvae import evaluate
from recvae.errors import InvalidDataError
from recvae.evaluation.breakdown import break_down, make_groups
from recvae.models import EASE
from recvae.models.baselines import Popularity


@pytest.fixture(scope="module")
def measured(split):
    return evaluate(EASE(l2=30.0).fit(split.train), split.test, ["recall@7", "ndcg@30"], keep_lists=True)


def test_lists_are_kept_where_they_are_asked_for(split, measured):
    model = EASE(l2=30.0).fit(split.train)
    ids, _ = model.recommend(np.arange(split.test.fold_in.shape[0]), split.test.fold_in, N=30)
    assert (measured.ranked == ids).all()
    blocks = evaluate(model, split.test, ["ndcg@30"], keep_lists=True, block_users=7)
    assert (blocks.ranked == measured.ranked).all()
    assert evaluate(model, split.test).ranked is None


def test_the_curve_is_the_metric_at_each_length(split, measured):
    found = break_down([measured], make_groups(split.test), "ndcg@30")
    assert len(found["recall_curve"]) == 30
    recall = measured["recall@7"]
    assert found["recall_curve"][6] == pytest.approx({"mean": recall.mean, "stderr": recall.stderr})


def test_groups_of_users_are_all_users_and_each_has_its_own(split, measured):
    groups = make_groups(split.test)
    sizes = np.diff(split.test.fold_in.indptr)
    assert sum(group["users"] for group in groups.about["activity"]) == len(sizes)
    found = break_down([measured], groups, "ndcg@30")["by_activity"]
    for about, own in zip(groups.about["activity"], found, strict=True):
        chosen = (sizes >= about["least"]) & (sizes <= about["most"])
        assert chosen.sum() == about["users"]
        assert own["mean"] == pytest.approx(measured["ndcg@30"].values[chosen].mean())


def test_groups_of_items_share_the_events_and_what_is_found_of_each(split, measured):
    groups, counts = make_groups(split.test), split.test.item_counts
    about = groups.about["popularity"]
    assert sum(group["items"] for group in about) == len(counts)
    assert sum(group["held_out"] for group in about) == split.test.held_out.nnz
    for place, group in enumerate(about):
        share = counts[groups.popularity == place].sum() / counts.sum()
        assert share == pytest.approx(0.2, abs=counts.max() / counts.sum())
        assert group["least"] <= group["most"]
    assert all(one["least"] >= other["most"] for one, other in itertools.pairwise(about))
    found = break_down([measured], groups, "ndcg@30")
    hits, held, listed = np.zeros(len(about)), np.zeros(len(about)), np.zeros(len(about))
    for user, row in enumerate(split.test.held_out):
        np.add.at(held, groups.popularity[row.indices], 1)
        top = measured.ranked[user, :20]
        np.add.at(listed, groups.popularity[top], 1)
        np.add.at(hits, groups.popularity[np.intersect1d(top, row.indices)], 1)
    assert [own["mean"] for own in found["by_popularity"]] == pytest.approx((hits / held).tolist())
    assert found["listed"] == pytest.approx((listed / listed.sum()).tolist())
    assert all(0 < own["stderr"] < 0.2 for own in found["by_popularity"])


def test_the_error_of_a_ratio_is_that_of_the_bootstrap(split, measured):
    groups = make_groups(split.test)
    error = break_down([measured], groups, "ndcg@30")["by_popularity"][0]["stderr"]
    first = groups.popularity == 0
    held = np.array([first[row.indices].sum() for row in split.test.held_out])
    found = np.array(
        [
            first[np.intersect1d(top[:20], row.indices)].sum()
            for top, row in zip(measured.ranked, split.test.held_out, strict=True)
        ]
    )
    drawn = np.random.default_rng(0).integers(len(held), size=(4000, len(held)))
    ratios = found[drawn].sum(1) / held[drawn].sum(1)
    assert error == pytest.approx(ratios.std(), rel=0.15)


def test_seeds_are_averaged(split, measured):
    other = evaluate(Popularity().fit(split.train), split.test, ["recall@7", "ndcg@30"], keep_lists=True)
    groups = make_groups(split.test)
    one, two, both = (break_down(runs, groups, "ndcg@30") for runs in ([measured], [other], [measured, other]))
    for key in ("recall_curve", "by_activity", "by_popularity"):
        for a, b, mean in zip(one[key], two[key], both[key], strict=True):
            assert mean["mean"] == pytest.approx((a["mean"] + b["mean"]) / 2)
    assert both["listed"] == pytest.approx((np.array(one["listed"]) + two["listed"]) / 2)


def test_where_all_users_are_alike_there_is_one_group(split):
    same = dataclasses.replace(split.test, fold_in=split.test.fold_in * 0)
    assert [group["users"] for group in make_groups(same).about["activity"]] == [len(split.test.users)]


def test_evaluations_without_lists_are_refused(split):
    bare = evaluate(Popularity().fit(split.train), split.test, ["ndcg@30"])
    with pytest.raises(InvalidDataError, match="keep_lists=True"):
        break_down([bare], make_groups(split.test), "ndcg@30")
