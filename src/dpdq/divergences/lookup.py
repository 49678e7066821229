"""Divergences by the names that results and the command line use."""

from __future__ import annotations

from collections.abc import Callable

from dpdq.divergences.base import Divergence
from dpdq.divergences.kullback_leibler import KL, Jeffreys, ReverseKL
from dpdq.divergences.mixtures import JensenShannon, SoftenedKL, SoftenedReverseKL
from dpdq.divergences.powers import AlphaDivergence, NeymanChi2, PearsonChi2, SquaredHellinger
from dpdq.divergences.variation import TotalVariation
from dpdq.errors import OptionError

__all__ = ["DIVERGENCES", "divergence"]

_BY_NAME: dict[str, Callable[[], Divergence]] = {
    cls.name: cls
    for cls in (
        KL,
        ReverseKL,
        JensenShannon,
        TotalVariation,
        PearsonChi2,
        NeymanChi2,
        SquaredHellinger,
        SoftenedReverseKL,
        SoftenedKL,
        Jeffreys,
    )
}

DIVERGENCES: tuple[str, ...] = (*_BY_NAME, AlphaDivergence.name)
"""All names that `divergence` knows."""


def divergence(name: str, *, alpha: float | None = None) -> Divergence:
    """Find the divergence of a snake-case name.

    Parameters
    ----------
    name
        One of `DIVERGENCES`.
    alpha
        The order, for ``"alpha"`` alone.

    Returns
    -------
    Divergence

    Raises
    ------
    OptionError
        If the name is unknown, or alpha is missing or given in vain.

    Examples
    --------
    >>> divergence("kl")
    KL()
    >>> divergence("alpha", alpha=0.5)
    AlphaDivergence(alpha=0.5)
    """
    if name == AlphaDivergence.name:
        if alpha is None:
            raise OptionError("Divergence 'alpha' needs its order: pass alpha=0.5, for example")
        return AlphaDivergence(alpha)
    if name not in _BY_NAME:
        choices = ", ".join(f"'{choice}'" for choice in DIVERGENCES)
        raise OptionError(f"Unknown divergence {name!r}. Choose one of {choices}.")
    if alpha is not None:
        raise OptionError(f"Divergence {name!r} takes no alpha; drop it or use 'alpha'")
    return _BY_NAME[name]()
