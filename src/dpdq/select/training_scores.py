"""Importance of training rows, read off while somebody else trains.

For a model with probabilities p_i, losses l_i and parameters theta, watched over runs (different
initialisations), checkpoints or epochs t:

    EL2N                 E_run |p_i - e_{y_i}|                         early, some 10 runs
    GraNd                E_run |grad_theta l_i|                        early, some 10 runs
    ForgettingCounts     #{t : right at t, wrong at t + 1}             over all of training
    VarianceOfGradients  mean_j sd_t (d f_{y_i} / d x_ij), z-scored within the class
    SelfInfluence        sum_t eta_t |grad_theta l_i|^2                checkpoints (TracIn)

All grow with how hard a row is for the model. What they do not fix is whether hard means
informative or wrong: flipped labels and outliers stand at the top too, so with label noise leave a
band at the top out (`CalibratedPruner(offset=...)`), or read the top as a list of suspects: on
digits with flipped labels all but the variance of gradients find the flips, which stays at chance
there. At strong pruning the hardest rows alone train far worse than random ones (10 % of digits or
MNIST kept: by 29 points and more): `dpdq.select.pruning`.

Each is fed batches of row numbers by any training loop, is saved by `state_dict`, and plays the
role of a utility; the same scores as functions of whole arrays stand in
`dpdq.select.score_formulas`. Gradient norms come from `dpdq.gradients.per_sample_gradient_norms`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.select._base import Utility
from dpdq.select.score_formulas import (
    check_norms,
    el2n,
    finite_numbers,
    self_influence,
    to_numpy,
    z_within_class,
)

__all__ = [
    "EL2N",
    "GraNd",
    "ForgettingCounts",
    "VarianceOfGradients",
    "SelfInfluence",
    "TrainingScore",
]


class TrainingScore(Utility):
    """Base of accumulators: rows are fed in batches, over runs or epochs, and scored at the end.

    Arrays grow with the largest row number seen; every row must have been fed before it is scored.
    """

    _arrays: Mapping[str, float] = {}  # name -> value of a row that was never fed
    _state: Mapping[str, np.ndarray] = {}

    def _grown(self, rows: Any, n: int, width: int | None = None) -> np.ndarray:
        """Row numbers of a batch, with room made for them; of ``width`` numbers a row if given."""
        numbers = np.arange(n) if rows is None else to_numpy(rows)
        if numbers.shape != (n,) or numbers.dtype.kind not in "iu":
            raise DataError(
                f"rows have shape {numbers.shape} and type {numbers.dtype}; expected {n} whole "
                "numbers, one a row of the batch"
            )
        if n and numbers.min() < 0:
            raise DataError("rows hold negative numbers; rows are counted from 0")
        if len(np.unique(numbers)) < n:
            raise DataError("rows name a row twice; feed each row once a call")
        state: dict[str, np.ndarray] = dict(self._state)
        size = int(numbers.max()) + 1 if n else 0
        more = size - len(state.get("fed", ()))
        for name, empty in {"fed": 0, **self._arrays}.items():
            shape = () if width is None or name in ("fed", "label") else (width,)
            kind = np.int64 if name in ("fed", "label") else np.float64
            old = state.get(name, np.zeros((0, *shape), kind))
            if old.shape[1:] != shape:
                raise DataError(
                    f"a batch has {width} numbers a row, and earlier ones had {old.shape[1]}"
                )
            state[name] = (
                np.concatenate([old, np.full((more, *shape), empty, kind)]) if (more > 0) else old
            )
        self._state = state
        return numbers.astype(np.int64)

    @property
    def _values(self) -> Mapping[str, np.ndarray]:
        state = self._state
        if not state:
            raise NotFittedError(f"{type(self).__name__} was fed no rows; call update or fit first")
        return state

    @abc.abstractmethod
    def _finish(self) -> np.ndarray:
        """Scores of all rows."""

    def utility(self, pool: Any = None) -> np.ndarray:
        """Scores of rows by number.

        Parameters
        ----------
        pool
            Row numbers, shape (n,); default all rows.

        Returns
        -------
        ndarray of shape (n,)
            Scores; larger is harder.

        Raises
        ------
        NotFittedError
            Nothing was fed.
        DataError
            Rows that were never fed.
        """
        fed = self._values["fed"]
        rows = np.arange(len(fed)) if pool is None else to_numpy(pool).astype(np.int64)
        missing = rows[(rows < 0) | (rows >= len(fed))]
        if not len(missing):
            missing = rows[fed[rows] == 0]
        if len(missing):
            raise DataError(
                f"{len(missing)} of {len(rows)} rows were never fed (first: row {missing[0]}); "
                "a score needs every row at least once"
            )
        return self._finish()[rows]

    def state_dict(self) -> dict[str, Any]:
        """What was accumulated, as arrays by name."""
        state = self._state
        return {"kind": type(self).__name__, **{name: a.copy() for name, a in state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises
        ------
        OptionError
            The state is of another kind of score.
        """
        kind = state.get("kind")
        if kind != type(self).__name__:
            raise OptionError(f"the state is of {kind!r} and this is a {type(self).__name__}")
        self._state = {name: np.array(a) for name, a in state.items() if name != "kind"}

    def _fitted_text(self) -> str:
        fed = self._state.get("fed")
        if fed is None or not len(fed):
            return ""
        return f" fed {len(fed):,} rows up to {int(fed.max())} times"


class EL2N(TrainingScore):
    """Length of the error vector early in training, averaged over runs.

        E_run |p_i - e_{y_i}|

    Feed some 10 runs of different initialisation after the first few epochs; late in training the
    score forgets what was hard. Mislabelled rows score highest of all.

    Parameters
    ----------
    inputs
        ``"logits"`` or ``"probabilities"``: what `update` is given.

    Raises
    ------
    DataError
        Shapes that do not fit.

    Notes
    -----
    Cost: O(n c) time an update, 16 bytes a row.
    Held by: tests/select/test_training_scores.py::test_batches_and_runs_average

    References
    ----------
    .. [M131] Deep Learning on a Data Diet: Finding Important Examples Early in Training.
       Paul, 2021, arXiv 2107.07075.

    Examples
    --------
    >>> from dpdq.select import EL2N, top_k
    >>> scores = EL2N()
    >>> for logits in ([[2.0, 0.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]]):  # two runs
    ...     scores.update(logits, labels=[0, 0])
    >>> top_k(scores.utility(), n=1).rows.tolist()
    [1]
    """

    _arrays = {"total": 0.0}

    def __init__(self, *, inputs: str = "logits") -> None:
        self.inputs = inputs

    def update(self, scores: Any, labels: Any, *, rows: Any = None) -> None:
        """Add one run's scores of a batch.

        Parameters
        ----------
        scores
            Logits or probabilities, shape (n, classes); NumPy or torch.
        labels
            Class numbers from 0, shape (n,).
        rows
            Row numbers of the batch, shape (n,); default the first n.
        """
        values = el2n(scores, labels, inputs=self.inputs)
        places = self._grown(rows, len(values))
        self._values["total"][places] += values
        self._values["fed"][places] += 1

    def fit(self, scores: Any, labels: Any) -> Self:
        """Start anew and feed whole runs.

        Parameters
        ----------
        scores
            Shape (runs, n, classes), or (n, classes) for one run.
        labels
            Class numbers from 0, shape (n,).
        """
        self._state = {}
        values = to_numpy(scores)
        for run in values[None] if values.ndim == 2 else values:
            self.update(run, labels)
        return self

    def _finish(self) -> np.ndarray:
        return self._values["total"] / np.maximum(self._values["fed"], 1)


class GraNd(TrainingScore):
    """Norm of each row's loss gradient early in training, averaged over runs.

        E_run |grad_theta l_i|

    Take it after a few epochs: at initialisation it hardly correlates with what it is meant to
    predict (Kirsch 2023, arXiv 2303.14753).

    Raises
    ------
    DataError
        Norms that are negative or not finite.

    Notes
    -----
    Cost: O(n) time an update beside the norms, 16 bytes a row.
    Held by: tests/select/test_training_scores.py::test_batches_and_runs_average

    References
    ----------
    .. [M131] Deep Learning on a Data Diet: Finding Important Examples Early in Training.
       Paul, 2021, arXiv 2107.07075.

    Examples
    --------
    >>> from dpdq.select import GraNd
    >>> GraNd().fit([[1.0, 3.0], [2.0, 5.0]]).utility().tolist()
    [1.5, 4.0]
    """

    _arrays = {"total": 0.0}

    def update(self, norms: Any, *, rows: Any = None) -> None:
        """Add one run's gradient norms of a batch.

        Parameters
        ----------
        norms
            Shape (n,), from `dpdq.gradients.per_sample_gradient_norms`.
        rows
            Row numbers of the batch, shape (n,); default the first n.
        """
        values = check_norms(norms)
        places = self._grown(rows, len(values))
        self._values["total"][places] += values
        self._values["fed"][places] += 1

    def fit(self, norms: Any) -> Self:
        """Start anew and feed whole runs, shape (runs, n), or (n,) for one."""
        self._state = {}
        for run in np.atleast_2d(to_numpy(norms)):
            self.update(run)
        return self

    def _finish(self) -> np.ndarray:
        return self._values["total"] / np.maximum(self._values["fed"], 1)


class ForgettingCounts(TrainingScore):
    """How often each row went from right to wrong between the times it was looked at.

    Feed every batch of training as it comes, or the whole set after every epoch. Rows that were
    never right get the number of times they were fed, which no count reaches.

    Raises
    ------
    DataError
        Shapes that do not fit.

    Notes
    -----
    Cost: O(n) time an update, 32 bytes a row.
    Held by: tests/select/test_training_scores.py::test_forgetting_counts_transitions

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.

    Examples
    --------
    >>> from dpdq.select import ForgettingCounts
    >>> scores = ForgettingCounts()
    >>> for correct in ([True, False], [False, False], [True, True]):
    ...     scores.update(correct)
    >>> scores.utility().tolist()
    [1.0, 0.0]
    """

    _arrays = {"last": 0.0, "ever": 0.0, "count": 0.0}

    def update(self, correct: Any, *, rows: Any = None) -> None:
        """Say which rows of a batch are right just now.

        Parameters
        ----------
        correct
            Booleans, shape (n,), such as ``logits.argmax(1) == labels``.
        rows
            Row numbers of the batch, shape (n,); default the first n.
        """
        right = to_numpy(correct)
        if right.ndim != 1 or not np.isin(right, (0, 1)).all():
            raise DataError(f"correct has shape {right.shape}; expected (n,) booleans")
        right = right.astype(np.float64)
        places = self._grown(rows, len(right))
        state = self._values
        state["count"][places] += (state["last"][places] == 1) & (right == 0)
        state["last"][places] = right
        state["ever"][places] = np.maximum(state["ever"][places], right)
        state["fed"][places] += 1

    def fit(self, correct: Any) -> Self:
        """Start anew and feed whole epochs, shape (epochs, n)."""
        self._state = {}
        for epoch in np.atleast_2d(to_numpy(correct)):
            self.update(epoch)
        return self

    def _finish(self) -> np.ndarray:
        state = self._values
        return np.where(state["ever"] == 1, state["count"], state["fed"].astype(np.float64))


class VarianceOfGradients(TrainingScore):
    """How much the true logit's gradient in the input moves over checkpoints, within the class.

        mean_j sd_t (s_tij),   then z-scored within the class (0 without spread)

    Means and squares are updated checkpoint by checkpoint (Welford), so no gradients are kept.
    Compares rows within a class only, and found no flipped labels on digits (AUROC 0.5).

    Raises
    ------
    DataError
        Shapes that differ between updates, or a row fed fewer than twice.

    Notes
    -----
    Cost: O(n d) time an update, 16 d bytes a row.
    Held by: tests/select/test_training_scores.py::test_variance_of_gradients_by_hand

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.

    Examples
    --------
    >>> from dpdq.select import VarianceOfGradients
    >>> scores = VarianceOfGradients()
    >>> for gradients in ([[0.0], [1.0]], [[2.0], [1.0]]):
    ...     scores.update(gradients, labels=[0, 0])
    >>> scores.utility().tolist()
    [1.0, -1.0]
    """

    _arrays = {"mean": 0.0, "squares": 0.0, "label": -1}

    def update(self, gradients: Any, labels: Any, *, rows: Any = None) -> None:
        """Add one checkpoint's gradients of a batch.

        Parameters
        ----------
        gradients
            Shape (n, ...), such as from `dpdq.gradients.true_logit_input_gradients`.
        labels
            Class numbers from 0, shape (n,).
        rows
            Row numbers of the batch, shape (n,); default the first n.
        """
        values = finite_numbers(gradients, "gradients")
        classes = to_numpy(labels)
        if values.ndim < 2 or classes.shape != (len(values),) or classes.dtype.kind not in "iu":
            raise DataError(
                f"gradients have shape {values.shape} and labels {classes.shape}; expected "
                "(n, ...) and class numbers (n,)"
            )
        values = values.reshape(len(values), -1)
        places = self._grown(rows, len(values), values.shape[1])
        state = self._values
        state["fed"][places] += 1
        state["label"][places] = classes
        moved = values - state["mean"][places]
        state["mean"][places] += moved / state["fed"][places, None]
        state["squares"][places] += moved * (values - state["mean"][places])

    def fit(self, gradients: Any, labels: Any) -> Self:
        """Start anew and feed whole checkpoints, shape (checkpoints, n, ...)."""
        self._state = {}
        for checkpoint in to_numpy(gradients):
            self.update(checkpoint, labels)
        return self

    def _finish(self) -> np.ndarray:
        state = self._values
        if (state["fed"] < 2).any():
            row = int((state["fed"] < 2).argmax())
            raise DataError(f"row {row} was fed once; a spread needs two checkpoints or more")
        spread = np.sqrt(np.maximum(state["squares"], 0) / state["fed"][:, None]).mean(axis=1)
        return z_within_class(spread, state["label"])


class SelfInfluence(TrainingScore):
    """TracIn's self-influence: what training on a row does to its own loss.

        sum_t eta_t |grad l_i(theta_t)|^2

    Raises
    ------
    DataError
        Norms that are negative or not finite.

    Notes
    -----
    Cost: O(n) time an update beside the norms, 16 bytes a row.
    Held by: tests/select/test_training_scores.py::test_self_influence_is_the_fall_of_the_loss

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.

    Examples
    --------
    >>> from dpdq.select import SelfInfluence
    >>> scores = SelfInfluence()
    >>> scores.update([1.0, 2.0], learning_rate=0.5)
    >>> scores.utility().tolist()
    [0.5, 2.0]
    """

    _arrays = {"total": 0.0}

    def update(self, norms: Any, learning_rate: float, *, rows: Any = None) -> None:
        """Add one checkpoint's gradient norms of a batch.

        Parameters
        ----------
        norms
            Shape (n,), from `dpdq.gradients.per_sample_gradient_norms`.
        learning_rate
            eta at this checkpoint.
        rows
            Row numbers of the batch, shape (n,); default the first n.
        """
        values = self_influence(np.atleast_2d(to_numpy(norms)), learning_rate)
        places = self._grown(rows, len(values))
        self._values["total"][places] += values
        self._values["fed"][places] += 1

    def fit(self, norms: Any, learning_rates: Any) -> Self:
        """Start anew and feed whole checkpoints: (checkpoints, n) norms and their rates."""
        self._state = {}
        values = np.atleast_2d(to_numpy(norms))
        rates = np.broadcast_to(np.asarray(learning_rates, dtype=np.float64), len(values))
        for checkpoint, rate in zip(values, rates, strict=True):
            self.update(checkpoint, float(rate))
        return self

    def _finish(self) -> np.ndarray:
        return self._values["total"]
