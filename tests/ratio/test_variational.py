"""VariationalRatio and its loss: the truth minimises it, second routes, convexity, torch."""

import pickle

import numpy as np
import pytest

from dpdq.divergences import DIVERGENCES, AlphaDivergence, TotalVariation, divergence
from dpdq.errors import InputTypeError, OptionError
from dpdq.ratio import VariationalRatio, variational_loss
from dpdq.ratio._common import logistic_losses
from dpdq.ratio._links import CriticLink, LogLink, convex_link
from dpdq.ratio.variational import smooth_divergence

NAMES = [name for name in DIVERGENCES if name not in ("total_variation", "alpha")]
MEMBERS = [divergence(name) for name in NAMES]
MEMBERS += [AlphaDivergence(0.5), AlphaDivergence(1.5), AlphaDivergence(-0.5)]
every = pytest.mark.parametrize("member", MEMBERS, ids=repr)


def pair(n, m, d=2, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


@every
def test_loss_is_minimised_by_the_truth(member):
    """On a law of five points, where means are exact; the minimum is minus the divergence."""
    q = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    p = np.array([0.25, 0.15, 0.2, 0.1, 0.3])
    truth = np.log(p / q)
    least = variational_loss(truth, truth, member, weights_q=q, weights_p=p)
    assert least == pytest.approx(-(q @ member.f(truth)), abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = truth + rng.normal(scale=rng.choice([0.01, 0.3, 2.0]), size=5)
        assert variational_loss(other, other, member, weights_q=q, weights_p=p) > least
    assert variational_loss(np.zeros(5), np.zeros(5), member) == pytest.approx(0, abs=1e-12)


def test_jensen_shannon_loss_is_the_logistic_loss():
    q, p = pair(50, 40, 1)
    losses = logistic_losses(q[:, 0], p[:, 0])
    expected = losses[0].mean() + losses[1].mean() - 2 * np.log(2)
    assert variational_loss(q[:, 0], p[:, 0]) == pytest.approx(expected, abs=1e-12)


@every
def test_numpy_and_torch_agree(member):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    log_q, log_p = rng.normal(size=30), rng.normal(size=20)
    w, v = rng.uniform(size=30), rng.uniform(size=20)
    tensors = [torch.tensor(x, requires_grad=True) for x in (log_q, log_p)]
    loss = variational_loss(*tensors, member, weights_q=torch.tensor(w), weights_p=v)
    expected = variational_loss(log_q, log_p, member, weights_q=w, weights_p=v)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-12)
    plain = variational_loss(*tensors, member)
    assert float(plain.detach()) == pytest.approx(variational_loss(log_q, log_p, member), abs=1e-12)
    loss.backward()
    # The gradients are h on rows of q and -h/r on rows of p.
    slope_q, slope_p = w / w.sum() * member.h(log_q), -v / v.sum() * member.h(log_p) / np.exp(log_p)
    np.testing.assert_allclose(tensors[0].grad.numpy(), slope_q, atol=1e-12)
    np.testing.assert_allclose(tensors[1].grad.numpy(), slope_p, atol=1e-12)


@every
def test_links_are_convex_and_their_derivatives_right(member):
    kind, link = convex_link(member.standard(), 0.01)
    score = np.linspace(-3, 3, 25)
    if kind != "log_ratio":
        score = link.member.f_prime(score)
    step = 1e-5
    for derivatives, side in ((link.on_q, 0), (link.on_p, 1)):
        first, second = derivatives(score)
        up, down = (link.loss(score + s, score + s)[side] for s in (step, -step))
        np.testing.assert_allclose(first, (up - down) / (2 * step), rtol=1e-5, atol=1e-6)
        rise = derivatives(score + step)[0] - derivatives(score - step)[0]
        np.testing.assert_allclose(second, rise / (2 * step), rtol=1e-4, atol=1e-5)
        assert (second >= 0).all()
    np.testing.assert_allclose(
        link.log_ratio(
            link.member.f_prime(np.linspace(-3, 3, 5)) if kind != "log_ratio" else score
        ),
        np.linspace(-3, 3, 5) if kind != "log_ratio" else score,
        atol=1e-9,
    )


@every
def test_log_ratio_is_no_convex_scale_for_the_others(member):
    """The module's table: where h grows and h/r falls, log r is a convex scale; else it is not."""
    g = np.linspace(-4, 4, 401)
    bend_q = np.diff(member.conjugate_at_prime(g), 2)
    bend_p = np.diff(-member.f_prime(g), 2)
    convex = bool((bend_q > -1e-10).all() and (bend_p > -1e-10).all())
    kind, link = convex_link(member.standard(), 0.01)
    assert convex == (kind == "log_ratio")
    assert isinstance(link, LogLink if convex else CriticLink)


def test_jensen_shannon_is_logistic_regression():
    """With bumps that nobody sees (centres far apart), the line is scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    q, p = pair(300, 200, 3)
    model = VariationalRatio(n_centers=2, bandwidths=[1e-3], ridges=[0.02]).fit(q, p)
    z = [(x - model._basis.center) / model._basis.scale for x in (q, p)]
    bumps = [model._basis.bumps(rows, 1e-3) for rows in z]
    x = np.vstack([np.hstack(both) for both in zip(z, bumps, strict=True)])
    w = np.repeat([1 / 300, 1 / 200], [300, 200])
    theirs = LogisticRegression(C=1 / 0.02, tol=1e-12, max_iter=10_000)
    theirs.fit(x, np.repeat([0, 1], [300, 200]), sample_weight=w)
    np.testing.assert_allclose(model.coef_, theirs.coef_[0][:3], atol=1e-4)
    np.testing.assert_allclose(model.log_ratio(q), theirs.decision_function(x[:300]), atol=1e-4)


def test_pearson_is_least_squares():
    """f'(r) = 2 (r - 1) linear in the features: the normal equations, where r stays positive."""
    q, p = pair(400, 300, 1, 0.2)
    model = VariationalRatio("pearson_chi2", n_centers=8, bandwidths=[2.0], ridges=[0.5])
    model.fit(q, p)
    assert model.linear_in_ == "f_prime"
    design_q, design_p = (
        model._design(model._basis.standardised(x), model.bandwidth_) for x in (q, p)
    )
    # loss = E_q[t²/4 + t] - E_p[t] + ½ ridge |theta|²
    gram = design_q.T @ design_q / 400 / 2
    gram[np.diag_indices_from(gram)] += np.r_[0, np.full(len(gram) - 1, 0.5)]
    theta = np.linalg.solve(gram, design_p.mean(0) - design_q.mean(0))
    ratio = 1 + design_q @ theta / 2
    assert ratio.min() > 0.01
    np.testing.assert_allclose(np.exp(model.log_ratio(q)), ratio, atol=1e-6)


@pytest.mark.parametrize(
    "one, other", [("kl", "reverse_kl"), ("pearson_chi2", "neyman_chi2"),
                   ("softened_kl", "softened_reverse_kl"), ("jeffreys", "jeffreys")]
)  # fmt: skip
def test_duals_exchange_the_sides(one, other):
    q, p = pair(300, 260)
    forth = VariationalRatio(one, random_state=0).fit(q=q, p=p).log_ratio(q)
    # n_centers is shared out to p first, so that an even number keeps the centres.
    back = VariationalRatio(other, random_state=0).fit(q=p, p=q).log_ratio(q)
    np.testing.assert_allclose(forth, -back, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "neyman_chi2"])
def test_every_divergence_finds_the_ratio(name):
    q, p = pair(3000, 3000, 2, 0.5)
    model = VariationalRatio(name, random_state=0).fit(q, p)
    x = np.random.default_rng(1).normal(size=(1000, 2)) + 0.25
    truth = (0.5 * x - 0.125).sum(axis=1)
    # Where r is small, log r amplifies the errors of links that are linear in r.
    limit = {"pearson_chi2": 0.8, "softened_kl": 0.5}.get(name, 0.25)
    assert np.sqrt(np.mean((model.log_ratio(x) - truth) ** 2)) < limit
    assert model.scores_.min() < 0


def test_two_bumps():
    """p is two bumps inside a wide q, where a line is blind."""
    rng = np.random.default_rng(0)
    q = 1.5 * rng.normal(size=(3000, 1))
    p = rng.choice([-1.5, 1.5], (3000, 1)) + 0.6 * rng.normal(size=(3000, 1))
    x = np.linspace(-2.5, 2.5, 41)
    bumps = np.exp(-((x - 1.5) ** 2) / 0.72) + np.exp(-((x + 1.5) ** 2) / 0.72)
    truth = np.log(bumps / 1.2) + x**2 / 4.5 + np.log(1.5)
    found = VariationalRatio(random_state=0).fit(q, p).log_ratio(x[:, None])
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.25


def test_no_structure_where_there_is_none():
    q, p = pair(2000, 2000, 3, 0.0)
    for name in ("jensen_shannon", "kl", "pearson_chi2"):
        model = VariationalRatio(name, random_state=0).fit(q, p)
        assert np.abs(model.log_ratio(q)).mean() < 0.15


def test_disjoint_laws_stay_finite():
    rng = np.random.default_rng(0)
    q, p = rng.uniform(0, 1, (200, 2)), rng.uniform(5, 6, (300, 2))
    for member in MEMBERS:
        model = VariationalRatio(member, random_state=0).fit(q, p)
        found = model.log_ratio(np.vstack([q, p, [[1e6, 1e6]]]))
        assert np.isfinite(found).all()
        assert found[200:500].min() > found[:200].max()


def test_few_rows_take_the_middle_of_the_grid():
    model = VariationalRatio().fit([[0.0], [1.0], [2.0]], [[1.0], [2.0], [4.0]])
    assert np.isinf(model.scores_).all()
    assert 0.05 < model.ridge_ < 0.2


def test_pickle_and_parameters():
    q, p = pair(200, 150)
    model = VariationalRatio(AlphaDivergence(0.5), random_state=0).fit(q, p)
    assert repr(model).startswith("VariationalRatio(divergence=AlphaDivergence(alpha=0.5)")
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.log_ratio(q), back.log_ratio(q))


def test_refusals():
    q, p = pair(30, 30)
    with pytest.raises(OptionError, match="total_variation has no gradient in log r; choose"):
        VariationalRatio("total_variation").fit(q, p)
    with pytest.raises(OptionError, match="total_variation has no gradient"):
        variational_loss(q, p, TotalVariation())
    with pytest.raises(OptionError, match="Unknown divergence 'hinge'. Choose one of 'kl'"):
        variational_loss(q, p, "hinge")
    with pytest.raises(InputTypeError, match="divergence has type int; give a name such as 'kl'"):
        smooth_divergence(3)
    with pytest.raises(OptionError, match="validation_fraction is 1; expected between 0 and 1"):
        VariationalRatio(validation_fraction=1).fit(q, p)
    with pytest.raises(OptionError, match="floor is 2"):
        VariationalRatio(floor=2).fit(q, p)


def test_adult(shared_data):
    """Numbers of people below against above forty: better than the constant on unseen rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "adult.parquet")
    names = ["education-num", "hours-per-week", "capital-gain", "fnlwgt"]
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(float)
    age = table["age"].to_numpy()
    q, p = x[age < 40][:6000], x[age >= 40][:6000]
    for name in ("jensen_shannon", "squared_hellinger", "reverse_kl"):
        model = VariationalRatio(name, random_state=0).fit(q[::2], p[::2])
        log_q, log_p = model.log_ratio(q[1::2]), model.log_ratio(p[1::2])
        assert variational_loss(log_q, log_p) < -0.01
