"""Is there a balance at all? The linear programme by column generation against all rows at once."""

import numpy as np
import pytest
from scipy.optimize import linprog

from dpdq.errors import OverlapError
from dpdq.reweight import EntropyBalancing
from dpdq.reweight._common import independent_rows
from dpdq.reweight._feasibility import clear_faces, hull_gap, refuse_infeasible
from dpdq.reweight._problem import make_problem


def problem(q, p):
    return make_problem(
        q,
        p,
        targets=None,
        weights_q=None,
        weights_p=None,
        kept_q=None,
        kept_p=None,
        types=None,
        bins=None,
        moments=1,
        interactions=(),
    )


@pytest.mark.parametrize("shift", [0.0, 0.6, 1.4])
def test_hull_gap_equals_the_full_programme(shift):
    rng = np.random.default_rng(0)
    q, p = rng.uniform(-1, 1, (900, 5)), rng.uniform(-1, 1, (200, 5)) * 0.2 + shift
    found = problem(q, p)
    gaps = ((found.functions.matrix(found.q).T - found.target) / found.sd).T
    k = 5
    full = linprog(
        np.concatenate([np.zeros(900), np.ones(2 * k)]),
        A_eq=np.block([[gaps, np.eye(k), -np.eye(k)], [np.ones((1, 900)), np.zeros((1, 2 * k))]]),
        b_eq=np.concatenate([np.zeros(k), [1.0]]),
    )
    assert np.abs(hull_gap(found)).sum() == pytest.approx(full.fun, abs=1e-6)
    assert np.abs(hull_gap(found, 0.1)).sum() <= full.fun


def test_refusal_comes_exactly_where_no_weights_exist():
    rng = np.random.default_rng(1)
    q = rng.uniform(-1, 1, (400, 2))
    q = q[np.abs(q).sum(axis=1) < 1]  # a diamond
    refused, balanced = 0, 0
    for radius in np.linspace(0.1, 0.95, 12):
        target = np.array([radius, 0.35])
        p = target + rng.normal(0, 0.01, (50, 2))
        try:
            model = EntropyBalancing().fit(q, p)
        except OverlapError:
            assert np.abs(hull_gap(problem(q, p))).sum() > 1e-6
            refused += 1
        else:
            assert model.diagnostics().largest_after < 1e-9
            balanced += 1
    assert refused >= 2
    assert balanced >= 5


def test_a_feasible_problem_is_not_refused():
    rng = np.random.default_rng(2)
    found = problem(rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) * 0.5)
    assert refuse_infeasible(found) is None


def test_faces_follow_from_each_other():
    """Dropping town=c leaves only size=1, where p's size=2 can no longer be met."""
    q = {"town": ["a", "a", "b", "c"] * 5, "size": ["1", "1", "1", "2"] * 5}
    p = {"town": ["a", "b"] * 10, "size": ["1", "2"] * 10}
    with pytest.raises(OverlapError, match="no row of q has size=2|every row of q that may have"):
        clear_faces(problem(q, p))


def test_independent_rows():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 50)) * [[1e-6], [1.0], [1e6], [1.0]]
    x = np.concatenate([x, x[:1] + x[1:2], np.zeros((1, 50)), x[3:] * 3])
    assert independent_rows(x @ x.T) == [0, 1, 2, 3]
