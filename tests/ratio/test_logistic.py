"""LogisticRatio: against a second route, its symmetry, its covariance, its limits."""

import numpy as np
import pytest

from dpdq.errors import OptionError
from dpdq.ratio import LogisticRatio


def pair(n, m, d, shift, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def test_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    q, p = pair(300, 200, 3, 0.5)
    ours = LogisticRatio(ridge=0.01).fit(q, p)
    # The balanced, standardised problem by another solver.
    pooled_mean = (q.mean(0) + p.mean(0)) / 2
    scale = np.sqrt((((q - pooled_mean) ** 2).mean(0) + ((p - pooled_mean) ** 2).mean(0)) / 2)
    x = (np.vstack([q, p]) - pooled_mean) / scale
    w = np.repeat([1 / 600, 1 / 400], [300, 200])
    theirs = LogisticRegression(C=1 / 0.01, tol=1e-12, max_iter=10_000)
    theirs.fit(x, np.repeat([0, 1], [300, 200]), sample_weight=w)
    np.testing.assert_allclose(ours.theta_[1:], theirs.coef_[0], atol=1e-5)
    np.testing.assert_allclose(
        ours.log_ratio(q), theirs.decision_function((q - pooled_mean) / scale), atol=1e-5
    )


@pytest.mark.parametrize("ridge", ["auto", 0.01])
def test_exchange_changes_the_sign_only(ridge):
    q, p = pair(300, 500, 4, 0.3)
    forth, back = LogisticRatio(ridge).fit(q=q, p=p), LogisticRatio(ridge).fit(q=p, p=q)
    assert forth.ridge_ == back.ridge_
    np.testing.assert_allclose(forth.log_ratio(q), -back.log_ratio(q), atol=1e-10)


def test_leave_one_out_loss_is_close_to_refitting():
    from dpdq.ratio._common import softplus
    from dpdq.ratio._designs import DenseDesign
    from dpdq.ratio.logistic import _Problem

    q, p = pair(40, 30, 2, 0.7)
    ridge = 0.01
    design = np.vstack([np.ones(70), np.vstack([q, p]).T])
    share, sign = np.repeat([1 / 80, 1 / 60], [40, 30]), np.repeat([1.0, -1.0], [40, 30])
    problem = _Problem(DenseDesign(design), share, sign, 40)
    theta, factor = problem.solve(ridge, np.zeros(3))
    fast = problem._left_out_loss(theta, factor)
    slow = 0.0
    for i in range(70):
        keep = np.arange(70) != i
        part = _Problem(DenseDesign(design[:, keep]), share[keep], sign[keep], 40 - (i < 40))
        left_out, _ = part.solve(ridge, theta)
        slow += share[i] * softplus(np.array([sign[i] * (left_out @ design[:, i])]))[0]
    in_sample = share @ softplus(sign * (theta @ design))
    assert abs(fast - slow) < 0.05 * (slow - in_sample)


def test_covariance_matches_the_spread_of_fits():
    """200 draws: a ratio of variances strays by 10 %; 0.6 to 1.6 leaves 4 standard errors."""
    fits = [LogisticRatio(ridge=1e-6).fit(*pair(400, 250, 2, 0.8, seed)) for seed in range(200)]
    slopes = np.array([fit.coef_ for fit in fits])
    stated = np.mean([np.diag(fit.covariance_)[1:] / fit._scale**2 for fit in fits], axis=0)
    assert (stated / slopes.var(axis=0) > 0.6).all()
    assert (stated / slopes.var(axis=0) < 1.6).all()


def test_ridge_rises_when_there_is_nothing_to_find():
    ridges = [LogisticRatio().fit(*pair(100, 100, 10, 0.0, seed)).ridge_ for seed in range(20)]
    assert np.median(ridges) >= 0.1
    assert LogisticRatio().fit(*pair(2000, 2000, 3, 1.0)).ridge_ <= 0.01


def test_separated_samples_stay_finite():
    q, p = pair(50, 50, 2, 100.0)
    for ridge in ("auto", 0.0, 1e-6):
        found = LogisticRatio(ridge).fit(q, p).log_ratio(np.vstack([q, p]))
        assert np.isfinite(found).all()
        assert found[:50].max() < 0 < found[50:].min()


def test_many_features_by_gradient():
    q, p = pair(300, 300, 450, 0.05)
    model = LogisticRatio().fit(q, p)
    assert model.covariance_ is None
    held_q, held_p = pair(1000, 1000, 450, 0.05, seed=1)
    assert model.log_ratio(held_p).mean() > model.log_ratio(held_q).mean()


@pytest.mark.parametrize("d, ridge", [(30, "auto"), (30, 0.01), (500, "auto")])
def test_sparse_equals_dense(d, ridge):
    """The same fit without the dense matrix: Newton below 400 features, L-BFGS above."""
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    q, p = (rng.poisson(0.05 + shift, (250, d)) * 1.5 for shift in (0.0, 0.05))
    q[:, 3] = p[:, 3] = 2.0  # constant, and not zero
    w = rng.integers(0, 3, 250)
    dense = LogisticRatio(ridge).fit(q, p, weights_q=w)
    for kind in (sp.csr_array, sp.csc_matrix, sp.coo_array):
        sparse = LogisticRatio(ridge).fit(kind(q), kind(p), weights_q=w)
        assert sparse.ridge_ == dense.ridge_
        limit = 1e-8 if d < 400 else 2e-3  # where L-BFGS stops
        np.testing.assert_allclose(sparse.log_ratio(kind(q)), dense.log_ratio(q), atol=limit)
        assert sparse.coef_[3] == 0
        if dense.covariance_ is not None:
            np.testing.assert_allclose(sparse.covariance_, dense.covariance_, rtol=1e-6, atol=1e-9)


def test_designs_agree():
    import scipy.sparse as sp

    from dpdq.ratio._designs import standardised

    rng = np.random.default_rng(0)
    q, p = rng.poisson(0.3, (40, 6)) * 1.0, rng.poisson(0.5, (30, 6)) * 1.0
    shares = rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(30))
    one = standardised(q, p, *shares)
    two = standardised(sp.csr_array(q), sp.csr_array(p), *shares)
    for mine, other in zip(one[1:], two[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    theta, v = rng.normal(size=7), rng.normal(size=70)
    for name, argument in (
        ("margins", theta), ("combine", v), ("gram", v),
    ):  # fmt: skip
        pair = [getattr(each[0], name)(argument) for each in (one, two)]
        np.testing.assert_allclose(pair[0], pair[1], atol=1e-10)
    blocks = [np.hstack([block for _, block in each[0].blocks()]) for each in (one, two)]
    np.testing.assert_allclose(blocks[0], blocks[1], atol=1e-12)


def test_bag_of_words_stays_sparse(shared_data):
    """Reviews of films against reviews of restaurants: a wide sparse matrix, never made dense."""
    import pyarrow.parquet as pq
    from sklearn.feature_extraction.text import HashingVectorizer

    table = pq.read_table(shared_data / "sentiment_3domains.parquet").to_pandas()
    text = next(name for name in table if table[name].astype(str).str.len().mean() > 20)
    domain = next(name for name in table if table[name].nunique() == 3)
    words = HashingVectorizer(n_features=2**18, alternate_sign=False).transform(table[text])
    chosen = [np.flatnonzero(table[domain] == name) for name in ("imdb", "yelp")]
    (q, q_new), (p, p_new) = ((words[rows[::2]], words[rows[1::2]]) for rows in chosen)
    model = LogisticRatio().fit(q=q, p=p)
    found = model.diagnose(q_new, p_new)
    assert found.loss.high < found.baseline_loss
    assert model.log_ratio(p_new).mean() > model.log_ratio(q_new).mean() + 1


def test_a_repeated_column_shares_its_weight():
    q, p = pair(300, 300, 1, 0.5)
    one = LogisticRatio(ridge=1e-4).fit(q, p)
    two = LogisticRatio(ridge=1e-4).fit(np.hstack([q, q]), np.hstack([p, p]))
    np.testing.assert_allclose(two.coef_[0], two.coef_[1], atol=1e-6)
    np.testing.assert_allclose(two.log_ratio(np.hstack([q, q])), one.log_ratio(q), atol=1e-3)


def test_options():
    q, p = pair(20, 20, 1, 0.5)
    with pytest.raises(OptionError, match="Unknown ridge 'lasso'. Choose 'auto' or a number."):
        LogisticRatio("lasso").fit(q, p)
    with pytest.raises(OptionError, match="ridge is -1; expected a finite number, 0 or more"):
        LogisticRatio(-1).fit(q, p)


def test_adult_by_age(shared_data):
    """People above 40 marry more often: the sign of r, on real rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(
        shared_data / "adult.parquet", columns=["age", "marital-status", "hours-per-week"]
    )
    age = np.asarray(table["age"])
    status = np.asarray(table["marital-status"].cast("string").to_pylist())
    levels = sorted(set(status))
    x = np.column_stack(
        [*(status == level for level in levels), np.asarray(table["hours-per-week"])]
    ).astype(float)
    q, p = x[age < 40], x[age >= 40]
    model = LogisticRatio().fit(q=q, p=p)
    log_ratio = model.log_ratio(x)
    assert log_ratio[age >= 40].mean() > log_ratio[age < 40].mean() + 0.5
    never, widowed = levels.index("Never-married"), levels.index("Widowed")
    assert model.coef_[never] < 0 < model.coef_[widowed]
    # The ratio of a level's shares is what r says about it, the other column being balanced.
    share = q[:, never].mean(), p[:, never].mean()
    said = np.log(np.average(np.exp(model.log_ratio(q)), weights=q[:, never]))
    assert abs(said - np.log(share[1] / share[0])) < 0.15
