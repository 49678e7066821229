"""TelescopingRatio: far Gaussians, discrete columns, the identity it rests on, refusals."""

import numpy as np
import pytest

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.ratio import LogisticRatio, TelescopingRatio
from dpdq.ratio._common import logistic_losses
from dpdq.ratio.telescoping import _auc, _Path, _SquaresRatio


def gaussians(kind, d, kl, n, m, seed=0):
    """Rows of q, rows of p, and log r, with KL(P || Q) = kl."""
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    if kind == "mean":
        shift = np.sqrt(2 * kl / d)
        return q, p + shift, lambda x: (shift * x - shift**2 / 2).sum(axis=1)
    rho = np.sqrt(1 - np.exp(-4 * kl / d))  # of each pair of columns under p
    p[:, 1::2] = rho * p[:, ::2] + np.sqrt(1 - rho**2) * p[:, 1::2]

    def log_r(x):
        a, b = x[:, ::2], x[:, 1::2]
        return (-np.log1p(-(rho**2)) - (b - rho * a) ** 2 / (1 - rho**2) + b**2).sum(axis=1) / 2

    return q, p, log_r


def rmse(model, x, log_r):
    return np.sqrt(np.mean((model.log_ratio(x) - log_r(x)) ** 2))


@pytest.mark.parametrize(
    "kind, d, kl, limit",
    [
        ("mean", 1, 30, 4),
        ("mean", 2, 30, 9),
        ("mean", 8, 20, 3),
        ("mean", 16, 30, 5),
        ("pairs", 20, 10, 2),
    ],
)
def test_beats_the_plain_estimator(kind, d, kl, limit):
    q, p, log_r = gaussians(kind, d, kl, 3000, 1500)
    far = TelescopingRatio(random_state=0).fit(q=q, p=p)
    plain = TelescopingRatio(n_bridges=1, random_state=0).fit(q=q, p=p)
    ours, theirs = rmse(far, p, log_r), rmse(plain, p, log_r)
    assert ours < limit
    assert ours < theirs / 2
    assert ours < rmse(LogisticRatio().fit(q, p), p, log_r) / 2
    assert (far.auc_ <= 0.9).all()
    assert far.status_.startswith(f"{len(far.bridges_)} bridges, all within reach")


def test_narrow_p_takes_geometric_steps():
    """A tenth, a hundredth, ...: halving the last bridge finds them."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(3000, 2)), 1e-3 * rng.normal(size=(3000, 2))
    model = TelescopingRatio(random_state=0).fit(q, p)
    truth = 2 * np.log(1e3) - (p**2).sum(axis=1) * (1e6 - 1) / 2
    assert np.sqrt(np.mean((model.log_ratio(p) - truth) ** 2)) < 2
    assert np.diff(model.positions_)[-1] < 0.01


def test_near_laws_take_one_bridge():
    q, p, log_r = gaussians("mean", 3, 0.5, 1000, 800)
    model = TelescopingRatio(random_state=0).fit(q, p)
    assert model.positions_.tolist() == [0, 1]
    plain = _SquaresRatio().fit(q, p)
    np.testing.assert_array_equal(model.log_ratio(q), plain.log_ratio(q))
    assert rmse(model, q, log_r) < 0.4


def test_squares_do_not_depend_on_an_affine_map():
    q, p, _ = gaussians("pairs", 4, 2, 800, 700)
    rng = np.random.default_rng(1)
    turn, shift = rng.normal(size=(4, 4)), rng.normal(size=4)
    one = _SquaresRatio().fit(q, p).log_ratio(q)
    other = _SquaresRatio().fit(q @ turn + shift, p @ turn + shift).log_ratio(q @ turn + shift)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_bridges_sum_up():
    q, p, _ = gaussians("mean", 2, 8, 600, 900)
    model = TelescopingRatio(LogisticRatio(), n_bridges=3, random_state=0).fit(q, p)
    assert len(model.bridges_) == 3
    np.testing.assert_allclose(model.positions_, [0, 1 / 3, 2 / 3, 1])
    total = sum(bridge.log_ratio(q) for bridge in model.bridges_)
    np.testing.assert_allclose(model.log_ratio(q), total)
    assert all(isinstance(bridge, LogisticRatio) for bridge in model.bridges_)


def test_waypoints():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(400, 2)) - 2, rng.normal(size=(900, 2)) + 2
    path = _Path(q, p, np.ones(400), np.ones(900), None, 0)
    assert path.waypoint(0)[0] is q
    assert path.waypoint(1)[0] is p
    rows, weights = path.waypoint(0.5)
    assert rows.shape == (900, 2)
    np.testing.assert_allclose(weights, 1)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(rows.var(axis=0), 1, atol=0.2)  # the variance of both sides
    groups = np.array([0, 0])
    rows = _Path(q, p, np.ones(400), np.ones(900), groups, 0).waypoint(0.3)[0]
    from_p = np.isin(rows, p).all(axis=1)
    assert (from_p | np.isin(rows, q).all(axis=1)).all()  # both columns cross together
    assert abs(from_p.mean() - 0.3) < 0.1


def test_discrete_columns_by_mixtures():
    """30 yes/no columns, 53 nats apart: the linear path leaves {0, 1}, mixtures stay in it."""
    rng = np.random.default_rng(0)
    q = (rng.random((2000, 30)) < 0.1).astype(float)
    p = (rng.random((2000, 30)) < 0.9).astype(float)

    def log_r(x):
        return ((2 * x - 1) * np.log(9)).sum(axis=1)

    mixture = TelescopingRatio(bridge="mixture", random_state=0).fit(q, p)
    assert rmse(mixture, q, log_r) < 5
    assert rmse(mixture, p, log_r) < 5
    assert rmse(TelescopingRatio(LogisticRatio(), random_state=0).fit(q, p), p, log_r) > 20
    assert rmse(LogisticRatio().fit(q, p), p, log_r) > 20


def test_weights_reach_every_bridge():
    """Rows of q drawn wide and weighted to N(-3, 1) give the log ratio of N(-3, 1)."""
    rng = np.random.default_rng(0)
    q, p = 1.5 * rng.normal(size=(6000, 1)) - 3, rng.normal(size=(3000, 1)) + 3
    w = np.exp(-((q[:, 0] + 3) ** 2) * (1 - 1 / 1.5**2) / 2)
    model = TelescopingRatio(n_bridges=5, random_state=0).fit(q, p, weights_q=w)
    x = np.linspace(-4, 4, 9)[:, None]
    assert np.abs(model.log_ratio(x) - 6 * x[:, 0]).max() < 6
    plain = TelescopingRatio(n_bridges=5, random_state=0).fit(q, p)
    assert np.abs(plain.log_ratio(x) - 6 * x[:, 0]).max() > 10


def test_beyond_reach_is_said():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    q[:, 1], p[:, 1] = 0.0, 1.0  # a column that separates by itself
    model = TelescopingRatio(max_bridges=4, random_state=0).fit(q, p)
    assert len(model.bridges_) == 4
    assert "beyond reach (0.9): log ratios are too small in size" in model.status_
    assert np.isfinite(model.log_ratio(np.vstack([q, p, [[1e300, -1e300]]]))).all()


def test_few_rows_are_not_judged():
    model = TelescopingRatio(random_state=0).fit([[0.0], [1.0]], [[5.0], [6.0]])
    assert np.isnan(model.auc_).all()
    assert "too few rows to hold some out" in model.status_


def test_auc_counts_ties_and_weights():
    assert _auc(np.array([0.1, 0.4, 0.4]), np.array([0.4, 0.8]), np.ones(3), np.ones(2)) == 5 / 6
    score_q, score_p = np.array([1.0, 2.0]), np.array([0.0, 3.0])
    weighted = _auc(score_q, score_p, np.array([1.0, 3.0]), np.array([2.0, 1.0]))
    repeated = _auc(np.repeat(score_q, [1, 3]), np.repeat(score_p, [2, 1]), np.ones(4), np.ones(3))
    assert weighted == pytest.approx(repeated)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_bridges": 0}, "n_bridges is 0; expected at least 1"),
        ({"n_bridges": "many"}, "Unknown n_bridges 'many'. Choose 'auto' or a number"),
        ({"bridge": "rows"}, "Unknown bridge 'rows'. Choose one of 'linear', 'mixture'"),
        ({"max_auc": 1.0}, "max_auc is 1.0; expected between 0.5 and 1"),
        ({"max_bridges": 0}, "max_bridges is 0; expected at least 1"),
        ({"column_groups": [0]}, "column_groups is for bridge='mixture'"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        TelescopingRatio(**options).fit(np.zeros((5, 1)), np.ones((5, 1)))


def test_refusals():
    with pytest.raises(InputTypeError, match="estimator has type int; give a ratio estimator"):
        TelescopingRatio(3).fit(np.zeros((5, 1)), np.ones((5, 1)))
    with pytest.raises(DataError, match=r"column_groups has shape \(2,\); expected \(1,\)"):
        TelescopingRatio(bridge="mixture", column_groups=[0, 1]).fit(
            np.zeros((5, 1)), np.ones((5, 1))
        )


def test_molecules(shared_data):
    """Short against long molecules, by counts of letters: one bridge is out of reach, four are not.

    No form is exact here and the errors of the bridges add up: the chain orders unseen rows as
    well as the plain estimators do, and its loss near the border is a little worse than theirs.
    """
    import pyarrow.parquet as pq

    texts = pq.read_table(shared_data / "molecules.parquet")["smiles"].to_pylist()
    x = np.array([[text.count(c) for c in "CcNnOo()=1"] for text in texts])
    x = x + np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)  # counts have no density
    length = np.array([len(text) for text in texts])
    low, high = np.quantile(length, [0.3, 0.7])
    q, p = x[length < low], x[length > high]
    far = TelescopingRatio(random_state=0).fit(q[::2], p[::2])
    assert len(far.bridges_) > 1
    assert (far.auc_ <= 0.9).all()
    log_q, log_p = far.log_ratio(q[1::2]), far.log_ratio(p[1::2])
    assert _auc(log_q, log_p, np.ones(len(log_q)), np.ones(len(log_p))) > 0.998
    losses = logistic_losses(log_q, log_p)
    assert losses[0].mean() / 2 + losses[1].mean() / 2 < 0.05
