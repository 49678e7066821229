"""A ratio on classes: how much more frequent is each label under p, without a label of p?

If the label's frequencies changed and the look of each class did not, P(X | Y) = Q(X | Y), then

    dP/dQ(x, y) = w(y) = P(y)/Q(y)

and the predictions of any classifier tell P(y). Let s(x) be its probabilities of C classes. Two
routes:

    moments     E_p[s] = sum_y P(y) E_q[s | y]: C linear equations for the C numbers P(y); right
                for any classifier, as long as no class is predicted like a mixture of others
    likelihood  P(y) maximise E_p[log sum_y P(y) s_y / Q(y)]; more precise, and right only where s
                are the true probabilities under q, which labelled rows of q can see to

What the predictions do not tell is whether P(X | Y) is kept: if it is not, the numbers are wrong
and look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.special import ndtri, softmax

from dpdq._parameters import Parameterised
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.ratio._class_priors import (
    SMALLEST,
    Moments,
    class_names,
    fit_calibration,
    most_likely_priors,
    paper_penalty,
)
from dpdq.ratio._common import Array, as_rows, as_weights

__all__ = ["LabelShiftRatio"]


class LabelShiftRatio(Parameterised):
    """Log ratio of classes under label shift, from a classifier's probabilities on q and p.

        log w(y) = log P(y) - log Q(y),  assuming P(X | Y) = Q(X | Y)

    The labelled rows of q must not be those that the classifier was trained on, else it looks
    surer than it is. Nothing shows whether the assumption holds; features that moved are read as
    labels that moved.

    Parameters
    ----------
    method
        ``"em"``: maximum likelihood, the most precise. ``"bbse"``: least squares on the moments
        over all P(y) that are probabilities; needs no calibration. ``"rlls"``: the same with a
        penalty on w - 1, for few labelled rows and many classes.
    calibrate
        Whether a temperature and one offset a class are fitted to the labelled rows of q first.
        ``"em"`` and `adapt` need calibrated s; the moments do not, and lose nothing by it.
    predictions
        For the moments: ``"soft"`` probabilities, or ``"hard"`` decisions.
    level
        Coverage of the intervals.

    Attributes
    ----------
    classes_
        Names of the classes, in the order of the columns.
    priors_q_, priors_p_
        Q(y) among the labelled rows, and the estimate of P(y).
    priors_p_interval_
        Shape (C, 2): two-sided, each class for itself, by the delta method over both samples. For
        ``"rlls"`` it leaves out the penalty's bias.
    priors_p_standard_error_
        Shape (C,).
    class_log_ratio_
        log w(y), shape (C,); -infinity for a class that p seems not to have.
    confusion_
        E_q[s | y], shape (C, C): columns are the true classes.
    temperature_, offsets_
        Of the calibration (1 and 0 without): calibrated s is softmax(log s / temperature +
        offsets).
    n_q_, n_p_
        Rows of positive weight.
    status_
        How well the frequencies are known.

    Notes
    -----
    Cost: O(n C²) time an iteration, a few dozen of them; O(n C) memory.
    Held by: tests/ratio/test_label_shift.py::test_intervals_cover

    Changed from the papers: least squares is solved over the probabilities (clipping negative
    entries of the inverse afterwards breaks E_q[w] = 1); the penalised problem, too; maximum
    likelihood is reached by Newton steps where they climb, else by the paper's iteration.

    References
    ----------
    .. [Saerens2002] Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple
       Procedure. Saerens, 2002, Neural Computation 14.
    .. [Lipton2018] Detecting and Correcting for Label Shift with Black Box Predictors. Lipton,
       2018, arXiv 1802.03916.
    .. [Azizzadenesheli2019] Regularized Learning for Domain Adaptation under Label Shifts.
       Azizzadenesheli, 2019, arXiv 1903.09734.
    .. [Alexandari2020] Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label
       Shift Adaptation. Alexandari, 2020, arXiv 1901.06852.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import LabelShiftRatio
    >>> rng = np.random.default_rng(0)
    >>> y_q, y_p = rng.integers(0, 2, 2000), (rng.random(2000) < 0.9).astype(int)
    >>> def proba(y):  # of N(2y - 1, 1) rows under equal frequencies
    ...     s = 1 / (1 + np.exp(-2 * (2 * y - 1 + rng.normal(size=len(y)))))
    ...     return np.column_stack([1 - s, s])
    >>> model = LabelShiftRatio().fit(q=proba(y_q), p=proba(y_p), labels_q=y_q)
    >>> bool(abs(model.priors_p_[1] - 0.9) < 0.03)
    True
    >>> bool(np.abs(model.log_ratio([0, 1]) - np.log([0.2, 1.8])).max() < 0.3)
    True
    """

    n_q_: int
    n_p_: int

    def __init__(
        self,
        method: str = "em",
        *,
        calibrate: bool = True,
        predictions: str = "soft",
        level: float = 0.95,
    ) -> None:
        self.method = method
        self.calibrate = calibrate
        self.predictions = predictions
        self.level = level

    def __repr__(self) -> str:
        text = self._shown_parameters()
        if "class_log_ratio_" in vars(self):
            text += (
                f", fitted: log dP/dQ of {len(self.classes_)} classes from {self.n_q_:,} labelled "
                f"rows of q and {self.n_p_:,} rows of p"
            )
        return text

    # ------------------------------------------------------------- fit
    def fit(
        self,
        q: object,
        p: object,
        *,
        labels_q: object,
        classes: Sequence[object] | Array | None = None,
        weights_q: object = None,
        weights_p: object = None,
    ) -> Self:
        """Learn the classes' log ratios.

        Parameters
        ----------
        q, p
            Probabilities of the classes, shapes (n_q, C) and (n_p, C), from one classifier: at
            labelled rows of q that did not train it, and at rows of p.
        labels_q
            True classes of the rows of q, shape (n_q,).
        classes
            Class of each column (a scikit-learn classifier's ``classes_``). Default the sorted
            labels, if there are C of them.
        weights_q, weights_p
            Importance weights of the rows; default uniform. Zero drops the row.

        Returns
        -------
        Self
            The estimator.

        Raises
        ------
        DataError
            Rows that are no probabilities, labels that do not match the columns, a class without
            a labelled row, or classes that the classifier does not tell apart.
        OptionError
            An unknown method or kind of predictions, or a level outside (0, 1).
        """
        self._check_options()
        vars(self).pop("class_log_ratio_", None)
        s_q, s_p = _probabilities(q, "q"), _probabilities(p, "p", width=None)
        if s_q.shape[1] != s_p.shape[1]:
            raise DataError(
                f"q has {s_q.shape[1]} columns and p has {s_p.shape[1]}; expected the same classes"
            )
        w_q, w_p = as_weights(weights_q, len(s_q), "q"), as_weights(weights_p, len(s_p), "p")
        self.classes_, codes = _coded_labels(labels_q, classes, s_q)
        s_q, codes, w_q = s_q[w_q > 0], codes[w_q > 0], w_q[w_q > 0]
        s_p, w_p = s_p[w_p > 0], w_p[w_p > 0]
        self.n_q_, self.n_p_ = len(s_q), len(s_p)
        share_q, share_p = w_q / w_q.sum(), w_p / w_p.sum()
        n_classes = len(self.classes_)
        self.priors_q_ = np.bincount(codes, weights=share_q, minlength=n_classes)
        if (self.priors_q_ == 0).any():
            missing = class_names(self.classes_[self.priors_q_ == 0])
            raise DataError(
                f"no labelled row of q has class {missing}; give some, or drop the column and "
                "rescale the rest"
            )
        self.temperature_, self.offsets_ = 1.0, np.zeros(n_classes)
        moved = None
        if self.calibrate:
            self.temperature_, self.offsets_, moved = fit_calibration(s_q, codes, share_q)
        logs_p = np.log(np.maximum(s_p, SMALLEST))
        s_q, s_p = self._calibrated(s_q), self._calibrated(s_p)
        if self.method != "em" and self.predictions == "hard":
            s_q, s_p = (np.eye(n_classes)[s.argmax(axis=1)] for s in (s_q, s_p))
        moments = Moments(s_q, codes, share_q, s_p, share_p)
        self.confusion_ = moments.confusion
        if self.method != "rlls":
            moments.refuse_if_singular(self.classes_)
        if self.method == "em":
            priors, centre, covariance = most_likely_priors(
                s_p, share_p, logs_p, codes, share_q, self.priors_q_, moved
            )
        else:
            penalty = 0.0 if self.method == "bbse" else paper_penalty(n_classes, self.n_q_)
            priors, centre, covariance = moments.solve(self.priors_q_, penalty)
        error = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
        reach = float(ndtri((1 + self.level) / 2)) * error
        self.priors_p_, self.priors_p_standard_error_ = priors, error
        centre = np.clip(centre, 0, 1)  # an end at the bound must not shrink the interval to it
        self.priors_p_interval_ = np.clip(np.column_stack([centre - reach, centre + reach]), 0, 1)
        with np.errstate(divide="ignore"):
            self.class_log_ratio_ = np.log(priors) - np.log(self.priors_q_)
        self.status_ = self._status()
        return self

    def _check_options(self) -> None:
        for name, choices in (
            ("method", ("em", "bbse", "rlls")),
            ("predictions", ("soft", "hard")),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"Unknown {name} {getattr(self, name)!r}. "
                    f"Choose one of {', '.join(map(repr, choices))}."
                )
        if not 0 < self.level < 1:
            raise OptionError(f"level is {self.level}; expected between 0 and 1")

    def _calibrated(self, s: Array) -> Array:
        if self.temperature_ == 1.0 and not self.offsets_.any():
            return s
        return softmax(np.log(np.maximum(s, SMALLEST)) / self.temperature_ + self.offsets_, axis=1)

    def _status(self) -> str:
        widths = np.diff(self.priors_p_interval_, axis=1)[:, 0]
        worst = int(widths.argmax())
        low, high = self.priors_p_interval_[worst]
        text = f"class {self.classes_[worst]!s} is known least: P from {low:.3f} to {high:.3f}"
        gone = self.priors_p_ <= 0
        if gone.any():
            text += f"; p seems to have no row of class {class_names(self.classes_[gone])}"
        return text + "; right only if the rows of each class look alike in q and p"

    # ------------------------------------------------------------- use
    def log_ratio(self, labels: object) -> Array:
        """Log ratio log w(y) of labels, for rows of q with their true class.

        Parameters
        ----------
        labels
            Classes, shape (n,).

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms; -infinity for classes that p seems not to have.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            A label that is none of ``classes_``.
        """
        self._check_fitted("log_ratio")
        return self.class_log_ratio_[_codes(np.asarray(labels), self.classes_, "labels")]

    def row_log_ratio(self, proba: object) -> Array:
        """Log ratio of rows whose class is not known, from their probabilities under q.

            log dP/dQ(x) = log sum_y w(y) s_y(x)

        Parameters
        ----------
        proba
            Probabilities by the same classifier, shape (n, C).

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms; right where s is calibrated.
        """
        self._check_fitted("row_log_ratio")
        s = self._calibrated(_probabilities(proba, "proba", width=len(self.classes_)))
        return np.log(np.maximum(s @ np.exp(self.class_log_ratio_), SMALLEST))

    def adapt(self, proba: object) -> Array:
        """Probabilities of the classes under p, from those under q.

            P(y | x) = w(y) s_y(x) / sum_c w(c) s_c(x)

        Parameters
        ----------
        proba
            Probabilities by the same classifier, shape (n, C); calibrated first as in the fit.

        Returns
        -------
        ndarray of shape (n, C)
            Rows sum to one. A row that has only classes which p seems not to have stays as it is.
        """
        self._check_fitted("adapt")
        s = self._calibrated(_probabilities(proba, "proba", width=len(self.classes_)))
        joint = s * np.exp(self.class_log_ratio_)
        total = joint.sum(axis=1, keepdims=True)
        return np.where(total > 0, joint / np.where(total > 0, total, 1.0), s)

    def _check_fitted(self, what: str) -> None:
        if "class_log_ratio_" not in vars(self):
            raise NotFittedError(f"LabelShiftRatio is not fitted; call fit(q, p) before {what}")


def _probabilities(x: object, side: str, width: int | None = None) -> Array:
    s = as_rows(x, side, width=width)
    totals = s.sum(axis=1)
    bad = (s < 0).any(axis=1) | (np.abs(totals - 1) > 1e-3)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{side}: {int(bad.sum())} of {len(s)} rows are no probabilities (row {row} sums to "
            f"{totals[row]:.4g}); give predict_proba, not scores or decisions"
        )
    if len(s) < 2 and side != "proba":
        raise DataError(f"{side} has {len(s)} row; expected at least 2 a side")
    return s / totals[:, None]


def _coded_labels(labels: object, classes: object, s: Array) -> tuple[Array, Array]:
    """Names of the columns, and the column of each label."""
    given = np.asarray(labels)
    if given.shape != (len(s),):
        raise DataError(f"labels_q has shape {given.shape}; expected ({len(s)},), one a row of q")
    if classes is None:
        names = np.unique(given)
        if len(names) != s.shape[1]:
            raise DataError(
                f"labels_q holds {len(names)} classes and q has {s.shape[1]} columns; pass "
                "classes= with the class of each column"
            )
    else:
        names = np.asarray(classes)
        if names.shape != (s.shape[1],) or len(np.unique(names)) != len(names):
            raise DataError(
                f"classes has shape {names.shape}; expected {s.shape[1]} different ones, one a "
                "column"
            )
    return names, _codes(given, names, "labels_q")


def _codes(labels: Array, names: Array, what: str) -> Array:
    order = np.argsort(names, kind="stable")
    place = np.minimum(np.searchsorted(names[order], labels), len(names) - 1)
    codes = order[place]
    wrong = names[codes] != labels
    if np.any(wrong):
        first = labels[wrong][0] if labels.ndim else labels
        raise DataError(
            f"{what} holds {first!s}, which is none of the classes {class_names(names)}"
        )
    return codes
