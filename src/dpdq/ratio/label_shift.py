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
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri, softmax

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.ratio._base import Parametrised
from dpdq.ratio._common import Array, as_rows, as_weights

__all__ = ["LabelShiftRatio"]

_SMALLEST = 1e-12  # probability whose logarithm is taken
_PAPER_SCALE = 0.01  # factor before the bound of the confusion matrix's error, as in the paper
_PAPER_DELTA = 0.05
_RIDGES = np.geomspace(1e-8, 1e6, 85).tolist()


class LabelShiftRatio(Parametrised):
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
            missing = _names(self.classes_[self.priors_q_ == 0])
            raise DataError(
                f"no labelled row of q has class {missing}; give some, or drop the column and "
                "rescale the rest"
            )
        self.temperature_, self.offsets_ = 1.0, np.zeros(n_classes)
        moved = None
        if self.calibrate:
            self.temperature_, self.offsets_, moved = _calibration(s_q, codes, share_q)
        logs_p = np.log(np.maximum(s_p, _SMALLEST))
        s_q, s_p = self._calibrated(s_q), self._calibrated(s_p)
        if self.method != "em" and self.predictions == "hard":
            s_q, s_p = (np.eye(n_classes)[s.argmax(axis=1)] for s in (s_q, s_p))
        moments = _Moments(s_q, codes, share_q, s_p, share_p)
        self.confusion_ = moments.confusion
        if self.method != "rlls":
            moments.refuse_if_singular(self.classes_)
        if self.method == "em":
            priors, centre, covariance = _most_likely(
                s_p, share_p, logs_p, codes, share_q, self.priors_q_, moved
            )
        else:
            penalty = 0.0 if self.method == "bbse" else _paper_penalty(n_classes, self.n_q_)
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
        return softmax(np.log(np.maximum(s, _SMALLEST)) / self.temperature_ + self.offsets_, axis=1)

    def _status(self) -> str:
        widths = np.diff(self.priors_p_interval_, axis=1)[:, 0]
        worst = int(widths.argmax())
        low, high = self.priors_p_interval_[worst]
        text = f"class {self.classes_[worst]!s} is known least: P from {low:.3f} to {high:.3f}"
        gone = self.priors_p_ <= 0
        if gone.any():
            text += f"; p seems to have no row of class {_names(self.classes_[gone])}"
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
        return np.log(np.maximum(s @ np.exp(self.class_log_ratio_), _SMALLEST))

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


def _names(classes: Array) -> str:
    return ", ".join(repr(str(each)) for each in classes)


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
        raise DataError(f"{what} holds {first!s}, which is none of the classes {_names(names)}")
    return codes


class _Moments:
    """E_p[s] = confusion @ priors, with the sampling errors of both sides."""

    def __init__(
        self, s_q: Array, codes: Array, share_q: Array, s_p: Array, share_p: Array
    ) -> None:
        n_classes = s_q.shape[1]
        self.confusion = np.empty((n_classes, n_classes))
        self.errors: list[Array] = []  # covariance of each column
        for j in range(n_classes):
            here = codes == j
            share = share_q[here] / share_q[here].sum()
            self.confusion[:, j] = share @ s_q[here]
            self.errors.append(_covariance_of_mean(s_q[here], share))
        self.target = share_p @ s_p
        self.target_error = _covariance_of_mean(s_p, share_p)

    def refuse_if_singular(self, classes: Array) -> None:
        """Refuse a confusion matrix that sampling error alone could make regular."""
        _, values, right = np.linalg.svd(self.confusion)
        direction = right[-1]
        noise = sum(d**2 * np.trace(each) for d, each in zip(direction, self.errors, strict=True))
        if values[-1] ** 2 > max(1e-12, 2 * noise):
            return
        alike = classes[np.abs(direction) > 0.4 * np.abs(direction).max()]
        raise DataError(
            f"the classifier does not tell classes {_names(alike)} apart (smallest singular value "
            f"{values[-1]:.2g} of the confusion matrix); merge them, give more labelled rows or a "
            "better classifier, or use method='rlls'"
        )

    def solve(self, priors_q: Array, penalty: float) -> tuple[Array, Array, Array]:
        """Least squares over probabilities; the solution without bounds, and its covariance.

        With a penalty, |confusion @ v - target| + penalty |v / priors_q - 1|. Its minimum lies on
        the path of ridge solutions, v = priors_q at its end included, and is looked up there.
        """
        scale = np.diag(1 / priors_q)
        ridge, priors = 0.0, self._bounded(0.0, scale)
        if penalty > 0:
            path = [(0.0, priors)]
            path += [(each, self._bounded(each, scale)) for each in _RIDGES]
            sizes = [
                np.linalg.norm(self.confusion @ v - self.target)
                + penalty * np.linalg.norm(v / priors_q - 1)
                for _, v in path
            ]
            ridge, priors = path[int(np.argmin(sizes))]
        normal = self.confusion.T @ self.confusion + ridge * scale @ scale
        inverse = np.linalg.solve(normal, self.confusion.T)
        centre = inverse @ self.target + ridge * np.linalg.solve(normal, 1 / priors_q)
        error = self.target_error + sum(
            v**2 * each for v, each in zip(priors, self.errors, strict=True)
        )
        return priors, centre, inverse @ error @ inverse.T

    def _bounded(self, ridge: float, scale: Array) -> Array:
        from scipy.optimize import nnls

        heavy = 1e4  # of the equation sum v = 1, which is then met exactly by scaling
        n = len(scale)
        matrix = np.vstack([self.confusion, np.sqrt(ridge) * scale, np.full((1, n), heavy)])
        found = nnls(matrix, np.concatenate([self.target, np.full(n, np.sqrt(ridge)), [heavy]]))[0]
        return found / found.sum()


def _covariance_of_mean(s: Array, share: Array) -> Array:
    moved = (s - share @ s) * share[:, None]
    return moved.T @ moved * (len(s) / max(len(s) - 1, 1))


def _paper_penalty(n_classes: int, n_q: int) -> float:
    """Bound on the error of the confusion matrix, from the paper, times its factor."""
    bits = np.log(2 * n_classes / _PAPER_DELTA)
    return _PAPER_SCALE * 3 * (2 * bits / (3 * n_q) + float(np.sqrt(2 * bits / n_q)))


def _calibration(s: Array, codes: Array, share: Array) -> tuple[float, Array, Array]:
    """Temperature and offsets by maximum likelihood, and each row's influence on (1/T, offsets).

    A normal prior around (1, 0), worth one row, keeps them finite where classes are separable and
    settles the offsets' common level.
    """
    logs = np.log(np.maximum(s, _SMALLEST))
    n, n_classes = s.shape
    hit = np.eye(n_classes)[codes]
    prior = np.concatenate([[1.0], np.zeros(n_classes)])
    theta = prior.copy()

    def value(theta: Array) -> float:
        score = theta[0] * logs + theta[1:]
        top = score.max(axis=1)
        total = top + np.log(np.exp(score - top[:, None]).sum(axis=1))
        gap = theta - prior
        return float(share @ (total - score[np.arange(n), codes]) + gap @ gap / (2 * n))

    now, hessian, pulls = value(theta), np.eye(n_classes + 1), np.zeros((n, n_classes + 1))
    for _ in range(100):
        probability = softmax(theta[0] * logs + theta[1:], axis=1)
        mean = (probability * logs).sum(axis=1)
        residual = hit - probability
        pulls = np.column_stack([(residual * logs).sum(axis=1), residual])
        weighted = probability * share[:, None]
        hessian = np.zeros((n_classes + 1, n_classes + 1))
        hessian[0, 0] = (weighted * logs**2).sum() - share @ mean**2
        hessian[0, 1:] = hessian[1:, 0] = (weighted * (logs - mean[:, None])).sum(axis=0)
        hessian[1:, 1:] = np.diag(weighted.sum(axis=0)) - weighted.T @ probability
        hessian.flat[:: n_classes + 2] += 1 / n
        step = np.linalg.solve(hessian, share @ pulls - (theta - prior) / n)
        length = 1.0
        while value(theta + length * step) > now + 1e-15 and length > 1e-6:
            length /= 2
        theta = theta + length * step
        last, now = now, value(theta)
        if last - now < 1e-13:
            break
    inverse_temperature = max(float(theta[0]), 1e-3)
    influence = np.linalg.solve(hessian, (pulls * share[:, None]).T).T
    return 1 / inverse_temperature, theta[1:], influence


def _most_likely(
    s_p: Array,
    share_p: Array,
    logs_p: Array,
    codes: Array,
    share_q: Array,
    priors_q: Array,
    calibration: Array | None,
) -> tuple[Array, Array, Array]:
    """Maximum-likelihood priors, one Newton step beyond the bounds, and the covariance of it.

    With z = s / Q(y) the stationary point has m_y = E_p[z_y / sum v z] = 1 for every class present.
    """
    z = s_p / priors_q
    z /= z.max(axis=1, keepdims=True)

    def value(v: Array) -> float:
        return float(share_p @ np.log(np.maximum(z @ v, 1e-300)))

    v = priors_q.copy()
    for _ in range(5_000):
        rho = z / np.maximum(z @ v, 1e-300)[:, None]
        means = share_p @ rho
        climbed = v * means
        climbed /= climbed.sum()
        alive = climbed > 1e-9
        curvature = (rho[:, alive].T * share_p) @ rho[:, alive]
        curvature.flat[:: alive.sum() + 1] += 1e-12 * curvature.diagonal().max()
        jump = np.zeros(len(v))
        jump[alive] = v[alive] + cho_solve(cho_factor(curvature), means[alive] - 1)
        jump /= jump.sum()
        if (jump >= 0).all() and value(jump) > value(climbed):
            climbed = jump
        last, v = v, climbed
        if np.abs(v - last).max() < 1e-11:
            break
    v = np.where(v < 1e-9, 0.0, v)
    v /= v.sum()
    rho = z / np.maximum(z @ v, 1e-300)[:, None]
    means = share_p @ rho
    curvature = (rho.T * share_p) @ rho
    curvature.flat[:: len(v) + 1] += 1e-12 * curvature.diagonal().max()
    factor = cho_factor(curvature)
    centre = v + cho_solve(factor, means - 1)
    from_p = (rho - means) * share_p[:, None]

    # The means move with c = offset - log Q(y) and with the inverse temperature.
    hit = np.eye(len(v))[codes]
    moved_c = -(hit - priors_q) * share_q[:, None] / priors_q
    from_q = np.zeros((len(codes), len(v)))
    if calibration is not None:
        moved_c += calibration[:, 1:]
        by_slope = share_p @ (rho * (logs_p - (rho * v * logs_p).sum(axis=1, keepdims=True)))
        from_q += calibration[:, :1] * by_slope
    from_q += moved_c @ (np.diag(means) - curvature * v).T
    covariance = cho_solve(factor, cho_solve(factor, from_p.T @ from_p + from_q.T @ from_q).T)
    return v, centre, covariance
