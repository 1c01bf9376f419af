"""`Recommender`, the base of all models: what users call.

The methods of this class carry the documentation; functions in the modules next to this one do the work. What a new
model has to define is in model.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import NotSupportedError
from recvae.models.base import explain, generative, partial_fit, recommend, similar
from recvae.models.base.explain import Explanation
from recvae.models.base.generative import Encoding, Explored, Latent
from recvae.models.base.model import Callbacks, FitCallback, Model
from recvae.models.base.params import parameters
from recvae.models.base.partial_fit import Names
from recvae.models.base.recommend import Items, ItemsOf
from recvae.models.base.state import become, changes, reads, snapshot
from recvae.utils.topk import Ranking

if TYPE_CHECKING:  # loaded by the methods that need them: a closed-form model has no use for the training of networks
    import pyarrow as pa

    from recvae.data.ids import Ids, ItemIndex
    from recvae.data.rules import ItemRules, Rules
    from recvae.data.splits import Holdout
    from recvae.models.base.model_file import File
    from recvae.training.checkpoint import Checkpoint

# public method -> methods of which a model has to define at least one, and what it lacks if it has none
_POSTERIOR = "distribution over a latent space"
_USER_VECTORS = "vectors of users, computed from their events"
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "similar_items": (("_similarity",), "vectors of its items"),
    "similar_users": (("_user_vectors", "_known_users"), _USER_VECTORS),
    "index_users": (("_user_vectors",), _USER_VECTORS),
    "partial_fit_users": (("_user_vectors",), _USER_VECTORS),
    "explain": (("_contributions",), "scores that come from the items of a row"),
    "partial_fit": (("_partial_fit",), "network to train further; a new fit takes seconds"),
    "add_items": (("_add_items",), "network whose items are vectors that features could predict"),
    "encode": (("_posterior",), _POSTERIOR),
    "sample_users": (("_sample",), _POSTERIOR),
    "anomaly_score": (("_elbo_terms",), _POSTERIOR),
}


@parameters
class Recommender(Model):
    """A model that ranks items for rows of a users x items matrix.

    A user is a row, never a number that the model looks up: users who were not in training are scored like all others.
    (Some baselines cannot do so: see `KnownUsers`.) A constructor only stores its arguments; `fit` checks them.
    Every model can `fit`, `recommend`, `score` and `save`; `abilities()` names the other methods that it has. Those
    that it does not have raise NotSupportedError.
    """

    @changes
    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: FitCallback | None = None,
        *,
        valid: Holdout | None = None,
        callbacks: Callbacks = (),
        checkpoint: Checkpoint | str | Path | None = None,
    ) -> Self:
        """Fit the model to the rows of `user_items`.

        Parameters
        ----------
        user_items : Interactions, csr_matrix, csr_array or Shards
            Rows of users, (U, I), with values >= 0. Networks also take `recvae.data.shards.Shards`, which may be larger
            than memory.
        show_progress : bool
            Whether to show a progress bar, if standard error is a terminal, and in a notebook.
        callback : callable, optional
            As in implicit: called as callback(iteration, seconds, loss) after each pass, if the model makes passes.
        valid : Holdout, optional
            Validation users, for models that select by validation, such as networks; other models ignore them. If they
            and the training data have raw item ids, columns are matched by id.
        callbacks : sequence of Callback or callable
            Callbacks (`recvae.training.callbacks`) such as `JsonLines(path)` and `TensorBoard(folder)`, or functions of
            an `Epoch` (ELBO terms, validation) such as print. Models without epochs only call `on_fit_start` and
            `on_fit_end`. An exception in a callback ends the fit, is raised, and leaves the model unchanged.
        checkpoint : Checkpoint, str or Path, optional
            For networks: a folder for checkpoints, or a `recvae.Checkpoint`, which also sets how often to write. The
            same fit, called again after an interruption, resumes from it and gives the same model.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        InvalidTypeError, InvalidDataError
            For data that cannot be used.
        InvalidParameterError
            For a hyper-parameter out of range, and for a checkpoint of another fit.
        TrainingError
            If the loss is not finite.
        NotSupportedError
            For shards or a checkpoint if the model is not a network.
        """
        from recvae.models.base import fit

        fit.fit(self, user_items, show_progress, callback, valid=valid, callbacks=callbacks, checkpoint=checkpoint)
        return self

    @overload
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = ...,
        filter_already_liked_items: bool = ...,
        filter_items: ItemsOf | None = ...,
        recalculate_user: bool = ...,
        items: ItemsOf | None = ...,
        *,
        seen: Any = ...,
        explore: None = ...,
        random_state: int | None = ...,
    ) -> Ranking: ...

    @overload
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = ...,
        filter_already_liked_items: bool = ...,
        filter_items: ItemsOf | None = ...,
        recalculate_user: bool = ...,
        items: ItemsOf | None = ...,
        *,
        seen: Any = ...,
        explore: float,
        random_state: int | None = ...,
    ) -> Explored: ...

    @reads
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: ItemsOf | None = None,
        recalculate_user: bool = False,
        items: ItemsOf | None = None,
        *,
        seen: Any = None,
        explore: float | None = None,
        random_state: int | None = None,
    ) -> Ranking | Explored:
        """The N best items for each row, as in implicit's `recommend`.

        Parameters
        ----------
        userid : int or sequence of int
            An integer for one user, or a sequence for several; it only determines the shape of the result (but see
            `KnownUsers`).
        user_items : csr_matrix or csr_array
            One row for each userid, over the items of training.
        N : int
            Length of the lists.
        filter_already_liked_items : bool
            Whether to exclude the items of the row.
        filter_items : sequence of int, csr_matrix or csr_array, optional
            Further items to exclude: a list for all users, or a CSR matrix with a row of items for each user.
        recalculate_user : bool
            Accepted as in implicit; rows are always encoded (but see `KnownUsers`).
        items : sequence of int, csr_matrix or csr_array, optional
            Rank these items only. At most one of `filter_items` and `items` may be a list; a matrix can be combined
            with either.
        seen : csr_matrix or csr_array, optional
            One row for each userid: items that the user has seen but not liked, such as those rated lower than the ones
            in `user_items`. They are always excluded, regardless of `filter_already_liked_items`. Every stored entry
            counts, whatever its value, including a rating of 0.
        explore : float, optional
            Rank by the scores at z = mu + explore * sigma * eps, with one draw eps ~ N(0, I) for each row, for models
            with a distribution over z: 0 gives the plain lists, 1 is Thompson sampling (Thompson 1933).
        random_state : int, optional
            Seed of these draws, which are made in row order; None draws a random seed.

        Returns
        -------
        Ranking or Explored
            (ids int32, scores float32) by descending score, equal scores by ascending id; of shape (N,) for one user
            and (len(userid), N) for a list. Lists with fewer than N items are padded with id -1 and score -FLT_MAX.
            With a list of `items`, N is at most their number. With `explore`, an `Explored`: ids, scores at z, and the
            standard deviation of each score.

        Raises
        ------
        NotFittedError
        InvalidTypeError, InvalidDataError
            For rows of the wrong type or shape, or with invalid values.
        OutOfRangeError
            For items that the model does not have.
        InvalidParameterError
            For N < 1 or explore < 0.
        NotSupportedError
            For `explore` if the model has no distribution over z.
        """
        exploration = generative.exploration(self, explore, random_state)
        filters = recommend.Filters(filter_already_liked_items, filter_items, items, seen)
        return recommend.recommend(self, userid, user_items, N, filters, recalculate_user, exploration)

    @reads
    def recommend_for(
        self,
        histories: Any,
        N: int = 10,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = None,
        min_value: float | None = None,
        seen: Any = None,
        behavior: str | None = None,
        weights: Mapping[str, float] | None = None,
        unknown_behavior: str = "refuse",
        filter_already_liked_items: bool = True,
        filter_items: Sequence[Any] | None = None,
        items: Sequence[Any] | None = None,
        rules: Rules | None = None,
    ) -> Any:
        """The N best items for each history, in raw ids.

        Parameters
        ----------
        histories : dict, list or frame
            {user: [item, ...]}; a list of such lists, whose users are then 0, 1, ...; or a frame (pandas, polars,
            pyarrow) with columns `user`, `item` and, if it is named, `value`.
        N : int
            Length of the lists.
        user : str
            Column of the users in a frame.
        item : str
            Column of the items in a frame.
        value : str or None
            Column of the values in a frame.
        min_value : float, optional
            For a frame with values, such as ratings: events of at least this value were liked, and are what the model
            reads; those below were only seen, and are not recommended. A value of 0 always counts as seen only.
        seen : dict, list or frame, optional
            Further items that the users have seen, in one of the forms of `histories` (a frame with the same column
            names): they are not recommended either. Items that the model does not know are ignored.
        behavior : str, optional
            Column of behaviours in a frame, such as view, cart and buy.
        weights : dict, optional
            What an event of each behaviour counts; by default as in training. One of weight 0 was only seen.
        unknown_behavior : str
            Whether to "refuse" or "drop" events of other behaviours.
        filter_already_liked_items : bool
            Whether to exclude the liked items of the history; items that were only seen are always excluded.
        filter_items, items : sequence, optional
            Raw ids of items to exclude, or of the only items to rank; unknown ids are ignored.
        rules : Rules, optional
            Allow and deny lists, also of each user, items that may come again, the only users, caps on categories, MMR,
            places for new items: `recvae.Rules`.

        Returns
        -------
        frame
            Columns user, rank, item, score and, if known, title; a row for each recommended item, at most N per user.
            The frame is of the library of `histories`; for a dict or a list it is a pyarrow table (`.to_pandas()`,
            `.to_pylist()`).

        Raises
        ------
        InvalidDataError
            For a model that was fitted without raw ids.
        RecvaeError
            As `read_histories` and `recommend`.

        Warns
        -----
        UnknownItemsWarning
            For items that the model does not know. They are left out of the histories; the warning's `unknown` counts
            them.
        UnknownIdsWarning
            For ids in the rules that have no effect; the warning's `unknown` counts them.

        Notes
        -----
        Users without known or without liked items get the recommendations for an empty history, except for what they
        have seen. Users who occur in `seen` only come after the others, or are sorted among them if those are in
        ascending order, as the users of a frame are.
        """
        columns: dict[str, Any] = {"user": user, "item": item, "value": value}
        columns |= {"behavior": behavior, "weights": weights, "unknown_behavior": unknown_behavior}
        raw = {"filter_items": filter_items, "items": items}
        liked = filter_already_liked_items
        return recommend.recommend_for(self, histories, N, columns, min_value, seen, liked, raw, rules)

    @reads
    def ranked_table(
        self, users: Ids, user_items: Any, N: int, *, rules: ItemRules | None = None, **filters: Any
    ) -> pa.Table:
        """The N best items for each row, as a table of raw ids like that of `recommend_for`; rows are always encoded.

        Parameters
        ----------
        users : array
            (U,) raw ids of the rows.
        user_items : csr_matrix or csr_array
            (U, I).
        N : int
            Length of the lists.
        rules : ItemRules, optional
            `Rules.resolve(model.known_items())`.
        **filters
            filter_already_liked_items, filter_items, items and seen as in `recommend`.
        """
        return recommend.ranked_table(self, users, user_items, N, rules, filters)

    @reads
    def known_items(self) -> ItemIndex:
        """Index of the raw ids that the model knows. Raises InvalidDataError if it knows none."""
        return recommend.known_items(self)

    @reads
    def score(self, user_items: Any, items: Items | None = None, *, userid: Any = None) -> NDArray[np.float32]:
        """Scores of all items, or of `items`, for each row, as input of ensembles and rerankers.

        Parameters
        ----------
        user_items : csr_matrix or csr_array
            (B, I).
        items : sequence of int, optional
            Indices of items.
        userid : sequence of int, optional
            (B,), for `KnownUsers` only.

        Returns
        -------
        ndarray of float32
            (B, I), or (B, len(items)) in the order of `items`; items of the row have scores too. -FLT_MAX if the model
            has no score.

        Raises
        ------
        RecvaeError
            As `recommend`.
        """
        return recommend.score(self, user_items, items, userid)

    @reads
    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Items | None = None,
        items: Items | None = None,
    ) -> Ranking:
        """The N items most similar to an item, as in implicit; the item itself comes first, except for ties.

        Parameters
        ----------
        itemid : int or sequence of int
            An index, or a list of indices; it also determines the shape of the result.
        N : int
            Length of the lists.
        recalculate_item
            A parameter of implicit that is not supported (NotSupportedError).
        item_users
            A parameter of implicit that is not supported (NotSupportedError).
        filter_items : sequence of int, optional
            Items to leave out.
        items : sequence of int, optional
            The only items to rank; not together with `filter_items`.

        Returns
        -------
        Ranking
            (ids int32, similarities float32), (N,) or (len(itemid), N), padded with -1 and -FLT_MAX. The similarity is
            the cosine of the model's item vectors; for ItemKNN, P3alpha, RP3beta and SLIM, their own weights; for
            HybridVAE, the mean of the cosines of its (first) network and its linear path.

        Raises
        ------
        NotSupportedError
            If the model has no vectors of items.
        OutOfRangeError
            For items that the model does not have.
        """
        self._check_able("similar_items")
        if recalculate_item or item_users is not None:
            raise NotSupportedError(
                f"{type(self).__name__} does not compute an item's vector from its users; expected item_users=None."
            )
        return similar.similar_items(self, itemid, N, filter_items, items)

    @reads
    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Items | None = None, users: Items | None = None
    ) -> Ranking:
        """The N users most similar to a user, who comes first, as in implicit's `similar_users`.

        Parameters
        ----------
        userid : int or sequence of int
            One or several rows of the matrix that `index_users` got; without such a call, of the training rows, if the
            model was fitted in this process.
        N : int
            Length of the lists.
        filter_users : sequence of int, optional
            Users to leave out.
        users : sequence of int, optional
            The only users to rank; not together with `filter_users`.

        Returns
        -------
        Ranking
            (ids int32, cosines float32), (N,) or (len(userid), N), padded with -1 and -FLT_MAX.

        Raises
        ------
        NotSupportedError
            If the model has no vectors of users.
        OutOfRangeError
            For users who are not in the index.
        NotFittedError
            If there is no index.
        """
        self._check_able("similar_users")
        return similar.similar_users(self, userid, N, filter_users, users)

    @changes
    def index_users(self, user_items: Any) -> Self:
        """Store the vectors of the users in these rows, for `similar_users`, where row u is user u.

        Parameters
        ----------
        user_items : csr_matrix or csr_array
            (U, I). Their vectors, (U, K) float32, are kept in memory and not saved.

        Returns
        -------
        Recommender
            The model itself.
        """
        self._check_able("index_users")
        become(self, {"_index": similar.encode_users(self, self._rows(user_items)), "_index_given": True})
        return self

    @changes
    def partial_fit_users(self, userids: Any, user_items: Any) -> None:
        """Update or add users in the index of `similar_users`, by their current rows; the model stays as it is.

        Parameters
        ----------
        userids : sequence of int
            (B,) users of the index; new users take the indices that follow its end, without a gap.
        user_items : csr_matrix or csr_array
            (B, I), a row for each.
        """
        self._check_able("partial_fit_users")
        become(self, {"_index": similar.updated_index(self, userids, user_items), "_index_given": True})

    @reads
    def explain(self, userid: Any, user_items: Any, itemid: Any, user_weights: Any = None, N: int = 10) -> Explanation:
        """The score of an item for a user, and the N items of the user that contribute most to it.

        Parameters
        ----------
        userid : int
            The user's row in `user_items`, if that is the full matrix as in implicit.
        user_items : csr_matrix or csr_array
            (U, I), or one row.
        itemid : int
            The item to explain.
        user_weights
            Accepted as in implicit, and ignored.
        N : int
            How many items.

        Returns
        -------
        tuple
            (score, [(item, contribution), ...] by descending contribution, None). In linear models the contributions
            sum to the score. In other models, the contribution of an item is the score minus the score without it;
            these do not sum to the score in general.

        Raises
        ------
        NotSupportedError
            If the model's scores are not computed from the items of a row.
        OutOfRangeError
            For an item or a user that does not exist.
        RecvaeError
            As `recommend`.
        """
        self._check_able("explain")
        return explain.explain(self, userid, user_items, itemid, N)

    @changes
    def partial_fit(
        self,
        user_items: Any,
        *,
        epochs: int | None = None,
        item_ids: Names = None,
        titles: Names = None,
        show_progress: bool = True,
        callback: FitCallback | None = None,
        callbacks: Callbacks = (),
    ) -> Self:
        """Train further on new rows, which may have new items.

        Parameters
        ----------
        user_items : Interactions, csr_matrix or csr_array
            Columns of Interactions are matched by raw id; ids that the model does not know become new items, in the
            order of those columns, with their titles. In a matrix (users, I + n), the last n columns are the new items.
            Rows may be users of the training data or other users; values are read as in `fit`.
        epochs : int, optional
            Further passes (for RecVAE and HybridVAE, rounds of them); by default a tenth of the model's `epochs`,
            rounded up; 0 adds the new items only.
        item_ids, titles : sequence, optional
            Of the n new items, if they come in a matrix and the model knows raw ids.
        show_progress
            As in `fit`.
        callback
            As in `fit`.
        callbacks
            As in `fit`.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        NotSupportedError
            If the model is not a network.
        InvalidDataError
            For fewer columns than the model has, for rows without events, for missing ids.
        RecvaeError
            As `fit`.

        Notes
        -----
        New items come after the others, which keep their indices and, until the first pass, their scores. A new item is
        initialised with the mean of the 20 old ones nearest to it by the cosine over the users of these rows. The
        passes are those of `fit` with the KL weight it ended with, with Adam at the model's learning rate from a fresh
        state; `random_state` decides all draws. The model gradually forgets what is not in the rows: include old ones.

        In a HybridVAE only the networks are trained; its linear path is extended by the new items. `history_` and
        `best_epoch_` stay those of `fit`. `trained_on_` becomes None, as there is no longer a single source, and the
        user index (`index_users`) is dropped. An error leaves the model unchanged.
        """
        self._check_able("partial_fit")
        names = {"item_ids": item_ids, "titles": titles}
        partial_fit.partial_fit(self, user_items, epochs, names, show_progress, callback, callbacks)
        return self

    @changes
    def add_items(self, item_features: Any, *, item_ids: Names = None, titles: Names = None) -> Self:
        """Add items without any events, by their features.

        Parameters
        ----------
        item_features : csr_matrix or csr_array
            (I + n, F), finite numbers; the first I rows are the model's items, in the model's order.
        item_ids, titles : sequence, optional
            Of the n new items, if the model knows raw ids.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        NotSupportedError
            If the model is not a network whose items are vectors.
        InvalidDataError
            For a wrong number of rows, values that are not finite, and ids that are missing or already in the model.
        NotEnoughMemoryError

        Notes
        -----
        The new items come after the others, whose scores stay. Their vectors, in the first layer and in the output
        layer, and their bias are predicted from the features by a ridge regression over the old items, with a penalty
        chosen by leave-one-out. The scale of a feature column matters: use 0 and 1, or standardise it. In a HybridVAE
        the linear path takes the mean of the 20 items nearest by the cosine of features. New items are ranked well
        among themselves, but low among all (see `items` of `recommend`) until `partial_fit` sees rows that contain
        them.
        """
        self._check_able("add_items")
        partial_fit.add_items(self, item_features, {"item_ids": item_ids, "titles": titles})
        return self

    @reads
    def encode(self, user_items: Any) -> Encoding:
        """The posterior over z of each user: features for clustering or a classifier.

        Parameters
        ----------
        user_items : csr_matrix or csr_array
            (B, I).

        Returns
        -------
        Encoding
            `Encoding(mean, logvar)`, (B, K) float32 each.

        Raises
        ------
        NotSupportedError
            If the model has no distribution over z.
        RecvaeError
            As `recommend`.
        """
        self._check_able("encode")
        return generative.encode(self, user_items)

    @reads
    def sample_users(
        self,
        n: int,
        latent: Latent = "prior",
        *,
        user_items: Any = None,
        temperature: float = 1.0,
        random_state: int | None = None,
    ) -> sparse.csr_matrix:
        """Histories of n synthetic users: z is drawn from `latent`, then items given z, without repetition.

        Parameters
        ----------
        n : int
            How many users.
        latent : {"prior", "aggregate"}
            p(z) (of the composite prior of RecVAE and HybridVAE only the part N(0, I), which depends on no user), or
            the mixture of q(z | x) over the rows.
        user_items : csr_matrix or csr_array, optional
            (U, I), the rows; by default those that the model was fitted on in this process.
        temperature : float
            Divides the logits; values below 1 concentrate the histories on likely items.
        random_state : int, optional
            Seed of all draws; None draws a seed.

        Returns
        -------
        csr_matrix
            (n, I) of ones.

        Raises
        ------
        NotSupportedError
            If the model has no distribution over z.
        NotFittedError
            If no rows are known.
        InvalidDataError
            For rows without any event.
        InvalidParameterError
            For n < 1 or a temperature below .001.
        UnknownNameError
            For another `latent`.

        Notes
        -----
        With a multinomial likelihood, a history has the length of the row whose posterior z was drawn from or, for the
        prior, of a random row; its items are drawn without replacement (Gumbel-top-n). With the other likelihoods each
        item is drawn independently, and the length varies accordingly. HybridVAE draws from its (first) network
        only, as scores of its linear path are not a likelihood. Rows without events are ignored.
        """
        self._check_able("sample_users")
        return generative.sample_users(self, n, latent, user_items, temperature, random_state)

    @reads
    def anomaly_score(self, user_items: Any, reference: Any = None) -> NDArray[np.float64]:
        """How unusual the histories of users are, compared with users of similar activity: higher is more unusual.

        Parameters
        ----------
        user_items : csr_matrix or csr_array
            (B, I).
        reference : csr_matrix or csr_array, optional
            (U, I), users to compare with; by default the training rows, if the model was fitted in this process. Of
            more than 10,000 rows with events, an evenly spaced subset of at most that many is used.

        Returns
        -------
        ndarray of float64
            (B,); 0 for a row without events.

        Raises
        ------
        NotSupportedError
            If the model has no distribution over z.
        NotFittedError
            If no reference is given and there are no training rows in this process.
        InvalidDataError
            For a reference without any event.

        Notes
        -----
        The two terms of the ELBO, -log p(x | z) per event at the posterior's mean, and KL(q(z | x) || p(z)), are
        standardised: minus the median of the 200 reference rows nearest in number of items, divided by 1.4826 times
        their median absolute deviation (a standard deviation, if values are normal). The score is the root of the sum
        of squares, where the first term counts only if it is worse than usual. So it needs no draw, and rows of 5 and
        of 500 items can be compared. The KL term counts in both directions: a row that the model cannot explain
        stays near the prior, a memorised one is far from it (measured in docs/latent.md).
        """
        self._check_able("anomaly_score")
        return generative.anomaly_score(self, user_items, reference)

    @reads
    def save(self, file: File) -> None:
        """Write the fitted model to one safetensors file with a description in JSON; `recvae.load` reads it.

        Parameters
        ----------
        file : str, Path or binary file
            A path, which is written atomically, or an open binary file.

        Raises
        ------
        NotFittedError
        OutputError
        InvalidDataError
            For weights that are not finite.

        Notes
        -----
        The file contains the ids and titles of the items and how values are read, but no user data (except the factors
        of `KnownUsers`). The same model gives the same bytes in any process.
        """
        from recvae.models.base import model_file

        model_file.save(self, file)

    @classmethod
    def load(cls, fileobj_or_path: File, device: str | None = None) -> Recommender:
        """Read a model of this class, as implicit's `load`; see `recvae.load`, which reads models of any class.

        Parameters
        ----------
        fileobj_or_path : str or Path or file object
            A file written by `save`.
        device : str or None
            As in `recvae.load`.

        Returns
        -------
        Recommender
            A fitted model.

        Raises
        ------
        InvalidDataError
            If the file contains a model of another class; otherwise as `recvae.load`.
        """
        from recvae.models.base import model_file

        return model_file.load_class(cls, fileobj_or_path, device)

    @classmethod
    def abilities(cls) -> frozenset[str]:
        """The methods beyond fit, recommend, score and save that models of this class have."""
        return frozenset(name for name in NEEDS if cls._is_able(name))

    @classmethod
    def _is_able(cls, verb: str) -> bool:
        return any(cls._defines(method) for method in NEEDS[verb][0])

    def _snapshot(self) -> Self:
        """A snapshot of the model, for callers that make several calls on one state."""
        return snapshot(self)

    def _check_able(self, verb: str) -> None:
        """Raise NotSupportedError unless the model has this method, NotFittedError unless it is fitted."""
        if not self._is_able(verb):
            able = ", ".join(["fit", "recommend", "score", *sorted(self.abilities())])
            raise NotSupportedError(f"{type(self).__name__} has no {verb}: it has no {NEEDS[verb][1]}. It has {able}.")
        self._check_fitted()
