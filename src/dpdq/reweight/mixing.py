"""Upsample or upweight? Domains of very different size, mixed by a temperature.

    p_i(tau) = n_i^(1/tau) / sum_j n_j^(1/tau)         tau = 1: as they are, infinity: equal
    w_i(tau) = p_i(tau) / p_i(1)                       the loss weights that say the same

Two ways train on the same expected gradient, sum_i p_i(tau) E_i[g]: *sampling* draws domain i with
p_i(tau); *scalarisation* draws at tau = 1 and multiplies the loss by w_i. With full batches they
are one path. With one drawn row their second moments differ,

    sampling        sum_i p_i(tau) m_i                       m_i = E||g||^2 in domain i
    scalarisation   sum_i p_i(tau)^2 / p_i(1) m_i

by Cauchy-Schwarz in favour of sampling where the m_i are alike: the weights of scalarisation are
rare and large. It is the other way round where the domains that are raised have small gradients.
So measure m_i and look at both (`TemperatureMixing.variance_report`).

What the definition does not fix: how long. A small domain that is drawn often is overfitted;
`CooldownSchedule` raises it first and then lets it be.

Which one: `TemperatureMixing` for shares and weights; a `CooldownSchedule` goes into
`dpdq.data.samplers.MixtureSampler` as its temperature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.results import Result

__all__ = ["CooldownSchedule", "TemperatureMixing", "MixingVariance", "gradient_moments"]


class TemperatureMixing:
    """Shares of domains at a temperature, and the loss weights equivalent to them.

        p_i(tau) = n_i^(1/tau) / sum_j n_j^(1/tau),   w_i = p_i(tau) / p_i(1)

    Equivalent in expectation only: see `variance_report` for what stochastic gradients make of it.

    Parameters
    ----------
    sizes
        Domain -> rows; or the domain of each row, shape (n,).
    tau
        Temperature, above 0; infinity makes the domains equal.

    Attributes
    ----------
    names
        Domains, in the order of the arrays below.
    shares
        p_i(tau), shape (K,).
    natural_shares
        p_i(1), shape (K,).
    scalarisation_weights
        w_i, shape (K,): mean one over the rows.

    Raises
    ------
    OptionError
        A temperature or a size that is not positive.
    DataError
        Domains of a wrong shape.

    Notes
    -----
    Cost: O(n log n) time once.
    Held by: tests/reweight/test_mixing.py::test_full_batch_paths_are_one

    References
    ----------
    .. [M196] Upsample or Upweight? Balanced Training on Heavily Imbalanced Datasets. Li, 2024,
       arXiv 2410.04579.

    Examples
    --------
    >>> mixing = TemperatureMixing({"large": 900, "small": 100}, tau=2.0)
    >>> mixing.shares.round(3), mixing.scalarisation_weights.round(3)
    (array([0.75, 0.25]), array([0.833, 2.5  ]))
    """

    def __init__(self, sizes: Mapping[Any, int] | Any, tau: float) -> None:
        if isinstance(sizes, Mapping):
            names, counts = list(sizes), np.array(list(sizes.values()), dtype=np.float64)
        else:
            labels = np.asarray(sizes)
            if labels.ndim != 1 or len(labels) == 0:
                raise DataError(f"domains have shape {labels.shape}; expected (n,), one a row")
            found, counted = np.unique(labels, return_counts=True)
            names, counts = found.tolist(), counted.astype(np.float64)
        if len(counts) == 0 or not ((counts > 0) & np.isfinite(counts)).all():
            raise OptionError(f"sizes are {counts.tolist()}; every domain needs a row")
        if not tau > 0:
            raise OptionError(f"tau is {tau!r}; give a positive number (1 keeps the sizes)")
        self.names: list[Any] = names
        self.tau = float(tau)
        self.natural_shares = counts / counts.sum()
        raised = np.exp((np.log(counts) - np.log(counts.max())) / self.tau)
        self.shares = raised / raised.sum()
        self.scalarisation_weights = self.shares / self.natural_shares

    def __repr__(self) -> str:
        pairs = zip(self.names, self.natural_shares, self.shares, strict=True)
        text = ", ".join(f"{name} {100 * a:.3g} % -> {100 * b:.3g} %" for name, a, b in pairs)
        return f"TemperatureMixing(tau={self.tau:g}: {text})"

    def row_weights(self, domains: Any) -> np.ndarray:
        """Loss weights of rows: w of each row's domain.

        Parameters
        ----------
        domains
            Domain of each row, shape (n,).

        Returns
        -------
        ndarray of shape (n,)
            Mean one over the rows that the sizes were counted on.

        Raises
        ------
        DataError
            A domain that has no size.
        """
        labels = np.asarray(domains)
        found, codes = np.unique(labels, return_inverse=True)
        unknown = [name for name in found.tolist() if name not in self.names]
        if unknown:
            raise DataError(f"domain {unknown[0]!r} has no size; known are {self.names}")
        places = np.array([self.names.index(name) for name in found.tolist()])
        return self.scalarisation_weights[places[codes]]

    def variance_report(
        self, moments: Mapping[Any, float] | Sequence[float] | Any, mean_gradients: Any = None
    ) -> MixingVariance:
        """Gradient variance of sampling and of scalarisation, for one drawn row.

            sampling:       sum_i p_i(tau) m_i               - ||G||^2
            scalarisation:  sum_i p_i(tau)^2 / p_i(1) m_i    - ||G||^2,    G = sum_i p_i(tau) E_i[g]

        Moments change as training goes: measure them again. A batch of B independent rows has
        1/B of it; `MixtureSampler` fixes the shares in an epoch and has less.

        Parameters
        ----------
        moments
            m_i = E||g||^2 in each domain: domain -> number, or in the order of ``names``; see
            `gradient_moments`.
        mean_gradients
            E_i[g], shape (K, d). ``None``: ||G|| counts as 0, and only the difference of the two
            variances is right.

        Returns
        -------
        MixingVariance
            Both, and which is smaller.

        Raises
        ------
        DataError
            A moment is missing, negative or not finite, or below its ||E_i[g]||^2.

        Notes
        -----
        Cost: O(K d) time.
        Held by: tests/reweight/test_mixing.py::test_variances_by_simulation

        References
        ----------
        .. [M196] Upsample or Upweight? Balanced Training on Heavily Imbalanced Datasets. Li, 2024,
           arXiv 2410.04579.

        Examples
        --------
        >>> mixing = TemperatureMixing({"large": 900, "small": 100}, tau=float("inf"))
        >>> report = mixing.variance_report([1.0, 1.0])
        >>> round(report.sampling, 3), round(report.scalarisation, 3)
        (1.0, 2.778)
        """
        if isinstance(moments, Mapping):
            absent = [name for name in self.names if name not in moments]
            if absent:
                raise DataError(f"moments have none for domain {absent[0]!r}")
            moments = [moments[name] for name in self.names]
        m = np.asarray(moments, dtype=np.float64)
        if m.shape != self.shares.shape or not ((m >= 0) & np.isfinite(m)).all():
            raise DataError(f"moments are {m.tolist()}; give {len(self.shares)} numbers, 0 or more")
        mean_square = 0.0
        if mean_gradients is not None:
            means = np.asarray(mean_gradients, dtype=np.float64)
            if means.ndim != 2 or len(means) != len(m):
                raise DataError(f"mean_gradients have shape {means.shape}; expected ({len(m)}, d)")
            if (np.square(means).sum(axis=1) > m * (1 + 1e-6) + 1e-300).any():
                raise DataError("a moment is below the square of its mean gradient; give E||g||^2")
            mean_square = float(np.square(self.shares @ means).sum())
        sampling = float(self.shares @ m)
        scalarisation = float(self.shares * self.scalarisation_weights @ m)
        return _report(self, sampling, scalarisation, mean_square)


@dataclasses.dataclass(frozen=True, repr=False)
class MixingVariance(Result):
    """How much one drawn gradient varies under either way of mixing.

    Attributes
    ----------
    tau
        The temperature.
    second_moment_sampling, second_moment_scalarisation
        E||g||^2 of one draw.
    sampling, scalarisation
        The same less ||G||^2: the trace of the covariance of one draw.
    ratio
        Second moment of sampling over that of scalarisation.
    status
        Which to use.
    """

    tau: float
    second_moment_sampling: float
    second_moment_scalarisation: float
    sampling: float
    scalarisation: float
    ratio: float | None
    status: str = ""


def _report(
    mixing: TemperatureMixing, sampling: float, scalarisation: float, mean_square: float
) -> MixingVariance:
    ratio = sampling / scalarisation if scalarisation > 0 else None
    if ratio is None:
        status = "All gradients are zero; there is nothing to compare."
    elif ratio < 0.99:
        status = (
            f"Draw by temperature: one draw varies less (second moment {ratio:.2g} times that of "
            "weighted losses)."
        )
    elif ratio > 1.01:
        status = (
            f"Weigh the losses: the domains that are raised have small gradients, and drawing them "
            f"more often varies more (second moment {ratio:.2g} times that of weighted losses)."
        )
    else:
        status = "Both vary alike; choose by convenience."
    return MixingVariance(
        mixing.tau,
        sampling,
        scalarisation,
        sampling - mean_square,
        scalarisation - mean_square,
        ratio,
        status,
    )


def gradient_moments(gradients: Any, domains: Any) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Moments of the gradient in each domain, from gradients of single rows.

        m_i = mean ||g||^2,   E_i[g] = mean g   over the rows of domain i

    Parameters
    ----------
    gradients
        One gradient a row, shape (n, d); of the last layer only where the whole is too large.
    domains
        Domain of each row, shape (n,).

    Returns
    -------
    tuple
        Names of the domains, moments (K,) and mean gradients (K, d), as
        `TemperatureMixing.variance_report` takes them.

    Raises
    ------
    DataError
        Shapes that do not fit.

    Notes
    -----
    Cost: O(n d) time.
    Held by: tests/reweight/test_mixing.py::test_variances_by_simulation

    References
    ----------
    .. [M196] Upsample or Upweight? Balanced Training on Heavily Imbalanced Datasets. Li, 2024,
       arXiv 2410.04579.

    Examples
    --------
    >>> names, moments, means = gradient_moments([[3.0, 4.0], [0.0, 1.0], [0.0, 3.0]], [0, 1, 1])
    >>> names, moments.tolist(), means.tolist()
    ([0, 1], [25.0, 5.0], [[3.0, 4.0], [0.0, 2.0]])
    """
    g, labels = np.asarray(gradients, dtype=np.float64), np.asarray(domains)
    if g.ndim != 2 or labels.shape != (len(g),) or len(g) == 0:
        raise DataError(
            f"gradients have shape {g.shape} and domains {labels.shape}; expected (n, d) and (n,)"
        )
    names, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    moments = np.bincount(codes, weights=np.square(g).sum(axis=1)) / counts
    means = np.zeros((len(names), g.shape[1]))
    np.add.at(means, codes, g)
    return names.tolist(), moments, means / counts[:, None]


@dataclasses.dataclass(frozen=True)
class CooldownSchedule:
    """Temperature of each epoch: high first, then 1 at once.

        tau(epoch) = tau  for epoch < until * n_epochs,   then  after

    Rare domains learn fast at the high temperature and are not overfitted after it; the switch is
    abrupt, as in the paper. A small model forgets them again: a linear classifier of digits, 1,000
    as they are and 10 mirrored, ends with a held-out loss on mirrored ones of 2.3 after cooldown,
    2.0 at a fixed tau = 5 and 2.6 at tau = 1, and on the others of 0.18, 0.21 and 0.17 (3 seeds):
    a compromise, not a gain on both.

    Parameters
    ----------
    n_epochs
        Epochs of the whole run.
    tau
        Temperature of the first part.
    until
        Share of the epochs at ``tau``, 0 to 1.
    after
        Temperature from there on; 1 is the domains' own shares.

    Raises
    ------
    OptionError
        A temperature that is not positive, or a share outside 0 to 1.

    Notes
    -----
    Cost: O(1) a call.
    Held by: tests/reweight/test_mixing.py::test_cooldown_drives_a_mixture_sampler

    References
    ----------
    .. [M196] Upsample or Upweight? Balanced Training on Heavily Imbalanced Datasets. Li, 2024,
       arXiv 2410.04579.

    Examples
    --------
    >>> from dpdq.data.samplers import MixtureSampler
    >>> domains = ["large"] * 990 + ["small"] * 10
    >>> schedule = CooldownSchedule(10, tau=5.0, until=0.5)
    >>> sampler = MixtureSampler(domains, temperature=schedule)
    >>> [round(sampler.shares(epoch)["small"], 2) for epoch in (0, 4, 5)]
    [0.29, 0.29, 0.01]
    """

    n_epochs: int
    _: dataclasses.KW_ONLY
    tau: float = 5.0
    until: float = 0.5
    after: float = 1.0

    def __post_init__(self) -> None:
        if self.n_epochs < 1:
            raise OptionError(f"n_epochs is {self.n_epochs}; give the epochs of the whole run")
        for name in ("tau", "after"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)!r}; give a positive number")
        if not 0 <= self.until <= 1:
            raise OptionError(f"until is {self.until!r}; give a share of the epochs, 0 to 1")

    def __call__(self, epoch: int) -> float:
        """Temperature of an epoch, counted from 0."""
        return self.tau if epoch < self.until * self.n_epochs else self.after
