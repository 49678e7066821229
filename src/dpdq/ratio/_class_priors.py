"""Frequencies of classes under p, from a classifier's probabilities s on q and p.

By moments: E_p[s] = confusion @ priors, with confusion = E_q[s | y]. By likelihood: the priors v
that maximise E_p[log sum_y v_y s_y / Q(y)]. Both with the sampling errors of both sides.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from dpdq.errors import DataError
from dpdq.ratio._common import Array

__all__ = [
    "SMALLEST",
    "Moments",
    "class_names",
    "fit_calibration",
    "most_likely_priors",
    "paper_penalty",
]

SMALLEST = 1e-12  # probability whose logarithm is taken
_PAPER_SCALE = 0.01  # factor before the bound of the confusion matrix's error, as in the paper
_PAPER_DELTA = 0.05
_RIDGES = np.geomspace(1e-8, 1e6, 85).tolist()


def class_names(classes: Array) -> str:
    """Names of classes for a message."""
    return ", ".join(repr(str(each)) for each in classes)


class Moments:
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
            f"the classifier does not tell classes {class_names(alike)} apart (smallest singular "
            f"value {values[-1]:.2g} of the confusion matrix); merge them, give more labelled rows "
            "or a better classifier, or use method='rlls'"
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


def paper_penalty(n_classes: int, n_q: int) -> float:
    """Bound on the error of the confusion matrix, from the paper, times its factor."""
    bits = np.log(2 * n_classes / _PAPER_DELTA)
    return _PAPER_SCALE * 3 * (2 * bits / (3 * n_q) + float(np.sqrt(2 * bits / n_q)))


def fit_calibration(s: Array, codes: Array, share: Array) -> tuple[float, Array, Array]:
    """Temperature and offsets by maximum likelihood, and each row's influence on (1/T, offsets).

    A normal prior around (1, 0), worth one row, keeps them finite where classes are separable and
    settles the offsets' common level.
    """
    logs = np.log(np.maximum(s, SMALLEST))
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


def most_likely_priors(
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
