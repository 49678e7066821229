"""Weights inside a scikit-learn pipeline: any estimator, fitted on q as if on p.

    argmin_theta  E_q[w loss(theta)],   w = dP/dQ by any weighter,   in place of  E_q[loss(theta)]

Weighting pays where the model cannot be right everywhere and has to be right on p; a model that is
right (or flexible enough) is made no better by it and pays with effective rows. Ask
`dpdq.reweight.weighting_advice` before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq.errors import InputTypeError, NotFittedError, OptionError
from dpdq.ratio.classifier import weight_keyword
from dpdq.reweight._base import ExtendingWeighter, Weighter

__all__ = ["Reweighted"]

_PASSED_ON = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
)
_ATTRIBUTES = ("classes_", "n_features_in_", "feature_names_in_", "n_outputs_")


class Reweighted(Parameterised):
    """A scikit-learn estimator fitted on q with weights towards p.

        weighter.fit(X, target);  estimator.fit(X, y, sample_weight=weighter.weights_)

    Misleads where P(Y|X) differs between q and p, which no weights mend, and where few effective
    rows are left: look at ``weighter_.diagnostics()``. `score` on rows of q says how well the model
    does on q unless ``weighted_score`` is on.

    Parameters
    ----------
    estimator
        Any scikit-learn classifier or regressor whose ``fit`` takes ``sample_weight``, or a
        pipeline that ends in one.
    weighter
        Any weighter of this room; default `EntropyBalancing`.
    target
        Rows of p (the columns of X, without y). Give it here rather than to ``fit`` where
        `fit` is called by others, as in ``GridSearchCV``: they cut an argument of ``fit`` that
        has as many rows as X.
    targets
        Population margins in place of rows of p.
    moments, interactions, types
        As in the weighter's ``fit``.
    weighted_score
        Score held-out rows of q with their weights, an estimate of the score on p: what a search
        for the best parameters on p should look at. Needs a weighter that extends to new rows.

    Attributes
    ----------
    estimator_, weighter_
        The fitted ones; those given stay as they are.
    weights_
        Weights used, design weights included, mean one.

    Notes
    -----
    Cost: one fit of the weighter and one of the estimator (two fits in all).
    Held by: tests/reweight/test_pipeline.py::test_equals_weights_by_hand

    References
    ----------
    .. [Shimodaira2000] Improving Predictive Inference under Covariate Shift by Weighting the
       Log-Likelihood Function. Shimodaira, 2000, Journal of Statistical Planning and Inference 90.
    .. [Sugiyama2007] Covariate Shift Adaptation by Importance Weighted Cross Validation. Sugiyama,
       2007, JMLR 8.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from dpdq.reweight import Reweighted
    >>> rng = np.random.default_rng(0)
    >>> X, p = rng.uniform(0, 2, (500, 1)), rng.uniform(1, 2, (300, 1))
    >>> y = X[:, 0] ** 2
    >>> model = Reweighted(LinearRegression()).fit(X, y, target=p)
    >>> bool(model.estimator_.coef_[0] > LinearRegression().fit(X, y).coef_[0])
    True
    """

    estimator_: Any
    weighter_: Weighter
    weights_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        weighter: Weighter | None = None,
        *,
        target: Any = None,
        targets: Mapping[Any, Any] | None = None,
        moments: Any = 1,
        interactions: Any = (),
        types: Mapping[str, str] | None = None,
        weighted_score: bool = False,
    ) -> None:
        self.estimator = estimator
        self.weighter = weighter
        self.target = target
        self.targets = targets
        self.moments = moments
        self.interactions = interactions
        self.types = types
        self.weighted_score = weighted_score

    def __repr__(self) -> str:
        text = self._shown_parameters()
        if "estimator_" in vars(self):
            text += f", fitted: {len(self.weights_):,} rows of q weighted towards p"
        return text

    def fit(self, X: Any, y: Any, *, target: Any = None, sample_weight: Any = None) -> Self:
        """Weight the rows of q towards p and fit the estimator with these weights.

        Parameters
        ----------
        X, y
            Rows of q and their labels.
        target
            Rows of p; default those given to the constructor.
        sample_weight
            Design weights of the rows of q, shape (n_q,); zero drops the row.

        Returns
        -------
        Self
            This object.

        Raises
        ------
        OptionError
            No target, two of them, or an estimator without ``sample_weight``.
        InputTypeError
            The weighter is none.
        DataError, OverlapError, ConvergenceError
            From the weighter.
        """
        from sklearn.base import clone

        for name in ("estimator_", "weighter_", "weights_"):
            vars(self).pop(name, None)  # not fitted until all has gone well
        if target is None:
            target = self.target
        if (target is None) == (self.targets is None):
            raise OptionError(
                "give either target (rows of p) or targets (population margins), one of them"
            )
        weighter = self._new_weighter()
        if self.weighted_score and not isinstance(weighter, ExtendingWeighter):
            raise OptionError(
                f"weighted_score needs weights of new rows, and {type(weighter).__name__} gives "
                "weights to the rows of the fit alone; use EntropyBalancing"
            )
        estimator: Any = clone(self.estimator)
        weight_keyword(estimator, np.ones(1))  # refused before the work
        weighter.fit(
            X,
            target,
            targets=self.targets,
            weights_q=sample_weight,
            moments=self.moments,
            interactions=self.interactions,
            types=self.types,
        )
        estimator.fit(X, y, **weight_keyword(estimator, weighter.weights_))
        self.estimator_, self.weighter_ = estimator, weighter
        self.weights_ = weighter.weights_
        return self

    def _new_weighter(self) -> Weighter:
        from sklearn.base import clone

        from dpdq.reweight.entropy import EntropyBalancing

        if self.weighter is None:
            return EntropyBalancing()
        if not isinstance(self.weighter, Weighter):
            raise InputTypeError(
                f"weighter is a {type(self.weighter).__name__}; give a weighter of dpdq.reweight, "
                "such as EntropyBalancing()"
            )
        weighter: Any = clone(self.weighter)
        return weighter

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score the fitted estimator by its own measure (accuracy, R²).

        Parameters
        ----------
        X, y
            Rows of p with labels; or held-out rows of q with ``weighted_score``.
        sample_weight
            Weights of these rows, shape (n,).

        Returns
        -------
        float
            What the estimator's ``score`` says; with ``weighted_score`` under the weights of these
            rows towards p.
        """
        model = self._fitted()
        if self.weighted_score:
            weighter = self.weighter_
            assert isinstance(weighter, ExtendingWeighter)
            log_ratio = weighter.log_ratio(X)
            weights = np.exp(log_ratio - log_ratio.max())
            sample_weight = weights if sample_weight is None else weights * sample_weight
        if sample_weight is None:
            return model.score(X, y)
        return model.score(X, y, sample_weight=sample_weight)

    def _fitted(self) -> Any:
        if "estimator_" not in vars(self):
            raise NotFittedError("Reweighted is not fitted; call fit(X, y, target=p) first")
        return self.estimator_

    def __getattr__(self, name: str) -> Any:
        """What the estimator can do, this object can do: predict, predict_proba, transform."""
        if name in _ATTRIBUTES and "estimator_" in vars(self):
            return getattr(self.estimator_, name)
        if name in _PASSED_ON and "estimator" in vars(self):
            getattr(self.estimator, name)  # an AttributeError where it has none
            return self._pass_on(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _pass_on(self, name: str) -> Callable[..., Any]:
        def call(X: Any, **options: Any) -> Any:
            return getattr(self._fitted(), name)(X, **options)

        return call

    def __sklearn_is_fitted__(self) -> bool:
        return "estimator_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: those of the estimator (classifier or regressor, missing values)."""
        from sklearn.utils import get_tags

        return get_tags(self.estimator)
