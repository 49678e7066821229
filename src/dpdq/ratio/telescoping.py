"""A far ratio as a sum of near ones: log dP/dQ along a chain of samples between q and p.

With laws q = m_0, m_1, ..., m_K = p on one space,

    log dP/dQ = sum_k log dm_k/dm_(k-1),

whatever the laws between are. A sample of n rows can show log ratios up to about log n, so that
beyond ten nats every direct estimate is a guess about rows that were never drawn: a classifier
that separates q from p perfectly has no reason to stop at the right slope. Each link of the chain
joins laws that overlap and can be learnt; errors of the links add up.

What the definition does not fix is the laws between. They must be easy to sample from q and p,
and each near the next:

    linear    x_k = sqrt(1 - a_k²) x_q + a_k x_p for centred rows of independent pairs: moves means
              and scales together, keeps the variance where q and p have the same
    mixture   each column (or group of columns) is that of x_p with probability a_k, else that of
              x_q: keeps one-hot and other discrete columns discrete

Mixing whole rows is no such path: the first mixture that holds any row of p is already log(a n)
nats from q, and nothing smaller than 1/n can be mixed in. Mixing columns works because a row
crosses over piece by piece, each piece being a short way; it fails for columns that determine
each other, which belong in one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import eigh

from dpdq._parameters import clone
from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, content_hash, validation_split
from dpdq.ratio.logistic import LogisticRatio

__all__ = ["TelescopingRatio"]

_NARROWEST = 2.0**-20  # of a bridge, as a part of the way from q to p
_FARTHEST = 1e6  # pooled standard deviations at which a square stops growing


class TelescopingRatio(RatioEstimator):
    """Log ratio as the sum of log ratios along a chain of bridges, for q and p far apart.

        log r(x) = sum_k log dm_k/dm_(k-1) (x),   m_0 = q, m_K = p

    For laws more than about 10 nats apart, where a direct estimate is far too small. Every bridge
    is asked about all x, also about rows that it has hardly seen: estimators that do not
    extrapolate (trees) lose most of the gain, and a form that fits no bridge exactly adds up its
    errors. Nearer laws need one bridge, which is the plain estimator.

    Parameters
    ----------
    estimator
        Unfitted ratio estimator of a bridge, cloned for each. Default for linear bridges:
        logistic regression on the coordinates in which both covariances are diagonal, and on
        their squares; it is exact for Gaussian laws, all of whose linear bridges are Gaussian,
        and does not depend on the scale or rotation of the columns. Default for mixtures:
        `LogisticRatio`, exact for independent one-hot columns.
    n_bridges
        K; ``"auto"`` halves the bridge with the largest held-out AUC until all are below
        ``max_auc``.
    bridge
        ``"linear"`` or ``"mixture"``.
    column_groups
        Label of each column, shape (d,), for ``bridge="mixture"``: columns with the same label
        (the one-hot columns of a categorical) cross over together. Default each for itself.

    max_auc
        Largest held-out AUC of a bridge that counts as within reach.
    max_bridges
        Bridges at most for ``"auto"``.
    random_state
        Seed of the hash that pairs rows and holds some out.

    Attributes
    ----------
    bridges_
        Fitted estimators, from q to p.
    positions_
        Ends of the bridges on the way from 0 (q) to 1 (p), shape (K + 1,); a_k is
        sin(pi/2 position) for linear bridges and the position itself for mixtures.
    auc_
        Held-out AUC of each bridge, shape (K,); NaN where there were too few rows to hold out.
    status_
        Whether all bridges are within reach, and what to do where not.

    Raises
    ------
    OptionError
        From ``fit``: an unknown bridge, or numbers out of range.

    Notes
    -----
    Cost: 2 K fits of the estimator on up to 2 max(n_q, n_p) rows (4 K for ``"auto"``), memory that
    of one.
    Held by: tests/ratio/test_telescoping.py::test_beats_the_plain_estimator

    Changed from the paper: bridges are fitted one by one rather than as heads of one network, and
    their number and places are found by halving. A pair's weight is the product of its rows'.

    References
    ----------
    .. [Rhodes2020] Telescoping Density-Ratio Estimation. Rhodes, 2020, arXiv 2006.12204.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import TelescopingRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(-3, 1, (2000, 2)), rng.normal(3, 1, (2000, 2))  # log r = 6 (x + y)
    >>> far = TelescopingRatio(random_state=0).fit(q=q, p=p)
    >>> near = TelescopingRatio(n_bridges=1, random_state=0).fit(q=q, p=p)
    >>> far.log_ratio([[3, 3]])[0].round(-1), near.log_ratio([[3, 3]])[0].round(-1)  # true: 36
    (np.float64(40.0), np.float64(10.0))
    """

    def __init__(
        self,
        estimator: RatioEstimator | None = None,
        *,
        n_bridges: int | str = "auto",
        bridge: str = "linear",
        column_groups: Sequence[object] | Array | None = None,
        max_auc: float = 0.9,
        max_bridges: int = 32,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.n_bridges = n_bridges
        self.bridge = bridge
        self.column_groups = column_groups
        self.max_auc = max_auc
        self.max_bridges = max_bridges
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        groups = self._check(q.shape[1])
        seed = child_seed(as_generator(self.random_state))
        template = self.estimator
        if template is None:
            template = _SquaresRatio() if groups is None else LogisticRatio()
        path = _Path(q, p, weights_q, weights_p, groups, seed)
        parts = []
        split = validation_split(q, p, 0.25, seed)
        if split is not None:
            held_q, held_p = split
            parts = [
                _Path(q[a], p[b], weights_q[a], weights_p[b], groups, seed, center=path.center)
                for a, b in ((~held_q, ~held_p), (held_q, held_p))
            ]

        def judge(start: float, end: float) -> float:
            """AUC of a bridge on rows that its fit has not seen."""
            if not parts:
                return np.nan
            seen, unseen = parts
            model = _fitted(template, seen.waypoint(start), seen.waypoint(end))
            (x, w), (y, v) = unseen.waypoint(start), unseen.waypoint(end)
            return _auc(model.log_ratio(x), model.log_ratio(y), w, v)

        if isinstance(self.n_bridges, str):
            ends, aucs = _halved(judge, self.max_auc, self.max_bridges)
        else:
            ends = np.linspace(0, 1, self.n_bridges + 1).tolist()
            aucs = [judge(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        self.positions_, self.auc_ = np.array(ends), np.array(aucs)
        self.bridges_ = [
            _fitted(template, path.waypoint(a), path.waypoint(b))
            for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]
        self.status_ = self._status()

    def _check(self, width: int) -> Array | None:
        """Options; the number of each column's group for mixtures, None for linear bridges."""
        if self.estimator is not None and not isinstance(self.estimator, RatioEstimator):
            raise InputTypeError(
                f"estimator has type {type(self.estimator).__name__}; give a ratio estimator such "
                "as LogisticRatio() (ClassifierRatio makes one out of a classifier)"
            )
        if isinstance(self.n_bridges, str):
            if self.n_bridges != "auto":
                raise OptionError(
                    f"Unknown n_bridges {self.n_bridges!r}. Choose 'auto' or a number."
                )
        elif self.n_bridges < 1:
            raise OptionError(f"n_bridges is {self.n_bridges}; expected at least 1")
        if not 0.5 < self.max_auc < 1:
            raise OptionError(f"max_auc is {self.max_auc}; expected between 0.5 and 1")
        if self.max_bridges < 1:
            raise OptionError(f"max_bridges is {self.max_bridges}; expected at least 1")
        if self.bridge not in ("linear", "mixture"):
            raise OptionError(f"Unknown bridge {self.bridge!r}. Choose one of 'linear', 'mixture'.")
        if self.column_groups is None:
            return None if self.bridge == "linear" else np.arange(width)
        if self.bridge == "linear":
            raise OptionError("column_groups is for bridge='mixture'; drop it or change the bridge")
        labels = np.asarray(self.column_groups)
        if labels.shape != (width,):
            raise DataError(f"column_groups has shape {labels.shape}; expected ({width},)")
        return np.unique(labels, return_inverse=True)[1]

    def _status(self) -> str:
        k, n = int(np.argmax(np.nan_to_num(self.auc_))), len(self.bridges_)
        largest = float(self.auc_[k])
        bridges = "1 bridge" if n == 1 else f"{n} bridges"
        if np.isnan(largest):
            return f"{bridges}; too few rows to hold some out and see whether that is enough"
        if largest <= self.max_auc:
            return f"{bridges}, all within reach (largest held-out AUC {largest:.3f})"
        return (
            f"bridge {k + 1} of {n} has a held-out AUC of {largest:.3f}, beyond reach "
            f"({self.max_auc:g}): log ratios are too small in size; take more bridges, the other "
            "kind of bridge, or drop columns that separate q from p by themselves"
        )

    def _log_ratio(self, x: Array) -> Array:
        total = np.zeros(len(x))
        for model in self.bridges_:
            total += model.log_ratio(x)
        return total


class _Path:
    """Samples of all laws between two samples, of the same random pairs throughout.

    Pairs go by hashes of the rows' content, so that the order of rows does not matter; the rows of
    the shorter side are used more than once.
    """

    def __init__(
        self,
        q: Array,
        p: Array,
        weights_q: Array,
        weights_p: Array,
        groups: Array | None,
        seed: int,
        *,
        center: Array | None = None,
    ) -> None:
        self.q, self.p, self.weights_q, self.weights_p = q, p, weights_q, weights_p
        if center is None:
            means = [w @ x / w.sum() for x, w in ((q, weights_q), (p, weights_p))]
            center = (means[0] + means[1]) / 2
        self.center = center
        n = max(len(q), len(p))
        rows_q = np.resize(np.lexsort((weights_q, content_hash(q, 2 * seed + 1))), n)
        rows_p = np.resize(np.lexsort((weights_p, content_hash(p, 2 * seed + 2))), n)
        self.pair_q, self.pair_p = q[rows_q], p[rows_p]
        self.pair_weights = weights_q[rows_q] * weights_p[rows_p]
        self.switch, self.groups = None, groups
        if groups is not None:
            self.switch = np.random.default_rng(seed).random((n, int(groups.max()) + 1))

    def waypoint(self, position: float) -> tuple[Array, Array]:
        """Rows and weights at a position from 0 (the rows of q) to 1 (those of p)."""
        if position <= 0:
            return self.q, self.weights_q
        if position >= 1:
            return self.p, self.weights_p
        if self.switch is not None:
            crossed = (self.switch < position)[:, self.groups]
            return np.where(crossed, self.pair_p, self.pair_q), self.pair_weights
        angle = position * np.pi / 2
        rows = np.cos(angle) * (self.pair_q - self.center)
        rows += np.sin(angle) * (self.pair_p - self.center)
        rows += self.center
        return rows, self.pair_weights


class _SquaresRatio(RatioEstimator):
    """Logistic fit on the joint eigenvectors of both covariances and on their squares.

        log r(x) = a + z'b + (z²)'c,   z = V'x,  V'S_q V and V'S_p V diagonal

    Between Gaussian laws log r has no other terms, so that 2 d features do instead of d²/2.
    """

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        mean_q, mean_p = share_q @ q, share_p @ p
        self._center = (mean_q + mean_p) / 2
        moved_q, moved_p = q - mean_q, p - mean_p
        scale = np.sqrt((share_q @ moved_q**2 + share_p @ moved_p**2) / 2)
        scale += (scale <= 1e-12 * np.maximum(np.abs(self._center), 1e-300)) * np.ptp(
            np.stack([mean_q, mean_p]), axis=0
        )  # columns that are constant on each side
        scale = np.where(scale > 1e-12 * np.maximum(np.abs(self._center), 1e-300), scale, np.inf)
        moved_q, moved_p = moved_q / scale, moved_p / scale
        cov_q, cov_p = (moved_q.T * share_q) @ moved_q, (moved_p.T * share_p) @ moved_p
        gap = (mean_p - mean_q) / scale
        # The means' difference counts as spread, so that no direction that holds it is dropped.
        values, vectors = eigh(cov_q + cov_p + np.outer(gap, gap) / 2)
        kept = values > 1e-10 * max(values[-1], 1e-300)
        white = vectors[:, kept] / np.sqrt(values[kept])
        turn = eigh(white.T @ cov_p @ white)[1] if kept.any() else np.zeros((0, 0))
        self._basis = (white @ turn) / scale[:, None]
        self._model = LogisticRatio().fit(
            self._features(q), self._features(p), weights_q=weights_q, weights_p=weights_p
        )

    def _features(self, x: Array) -> Array:
        z = np.clip((x - self._center) @ self._basis, -_FARTHEST, _FARTHEST)
        if z.shape[1] == 0:
            return np.zeros((len(x), 1))
        return np.hstack([z, z * z])

    def _log_ratio(self, x: Array) -> Array:
        return self._model.log_ratio(self._features(x))


def _halved(
    judge: Callable[[float, float], float], max_auc: float, max_bridges: int
) -> tuple[list[float], list[float]]:
    """Ends and AUCs of bridges, the worst one halved until all are within reach."""
    ends, aucs = [0.0, 1.0], [judge(0.0, 1.0)]
    while len(aucs) < max_bridges:
        wide = np.diff(ends) > _NARROWEST
        worst = int(np.argmax(np.where(wide, aucs, 0.0)))
        if not aucs[worst] > max_auc:
            break
        start, end = ends[worst], ends[worst + 1]
        middle = (start + end) / 2
        aucs[worst : worst + 1] = [judge(start, middle), judge(middle, end)]
        ends.insert(worst + 1, middle)
    return ends, aucs


def _fitted(
    template: RatioEstimator, start: tuple[Array, Array], end: tuple[Array, Array]
) -> RatioEstimator:
    (x, w), (y, v) = start, end
    return clone(template).fit(x, y, weights_q=w, weights_p=v)


def _auc(score_q: Array, score_p: Array, weights_q: Array, weights_p: Array) -> float:
    """Weighted share of pairs in which p has the higher score; ties count half."""
    order = np.argsort(score_q, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights_q[order])])
    ranked = score_q[order]
    left, right = np.searchsorted(ranked, score_p), np.searchsorted(ranked, score_p, "right")
    return float(weights_p @ (below[left] + below[right]) / (2 * below[-1] * weights_p.sum()))
