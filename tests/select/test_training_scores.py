import itertools

import numpy as np
import pytest

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.select import (
    EL2N,
    ForgettingCounts,
    GraNd,
    SelfInfluence,
    VarianceOfGradients,
    top_k,
)
from dpdq.select.score_formulas import (
    el2n,
    forgetting_events,
    self_influence,
    variance_of_gradients,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 60, 5)) * 2
LABELS = RNG.integers(0, 5, 60)
NORMS = RNG.gamma(2.0, size=(4, 60))
RIGHT = RNG.random((6, 60)) < 0.5
GRADIENTS = RNG.normal(size=(4, 60, 2, 3))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_el2n_is_the_norm_of_the_error():
    p = softmax(LOGITS[0])
    expected = np.linalg.norm(p - np.eye(5)[LABELS], axis=1)
    np.testing.assert_allclose(el2n(LOGITS[0], LABELS), expected, rtol=1e-12)
    np.testing.assert_allclose(el2n(p, LABELS, inputs="probabilities"), expected, rtol=1e-12)
    np.testing.assert_allclose(el2n(LOGITS[0] + 500, LABELS), expected, rtol=1e-11)
    order = RNG.permutation(5)
    turned = np.argsort(order)[LABELS]
    np.testing.assert_allclose(el2n(LOGITS[0][:, order], turned), expected, rtol=1e-12)
    # confident rows keep their order: 1 - p_y would be 0 for both
    sure = el2n([[40.0, 0.0], [50.0, 0.0]], [0, 0])
    np.testing.assert_allclose(sure, np.sqrt(2) * np.exp([-40.0, -50.0]), rtol=1e-12)


def test_forgetting_counts_transitions():
    counts = forgetting_events(RIGHT)
    for i in range(60):
        pairs = itertools.pairwise(RIGHT[:, i])
        expected = sum(a and not b for a, b in pairs) if RIGHT[:, i].any() else 6
        assert counts[i] == expected
    np.testing.assert_array_equal(ForgettingCounts().fit(RIGHT).utility(), counts)
    batches = ForgettingCounts()
    for epoch in RIGHT:
        for part in np.array_split(RNG.permutation(60), 7):
            batches.update(epoch[part], rows=part)
    np.testing.assert_array_equal(batches.utility(), counts)


def test_variance_of_gradients_by_hand():
    found = variance_of_gradients(GRADIENTS, LABELS)
    spread = np.sqrt(((GRADIENTS - GRADIENTS.mean(0)) ** 2).mean(0)).reshape(60, -1).mean(1)
    for c in range(5):
        own = spread[c == LABELS]
        np.testing.assert_allclose(found[c == LABELS], (own - own.mean()) / own.std())
    np.testing.assert_allclose(variance_of_gradients(3 * GRADIENTS + 1, LABELS), found)
    np.testing.assert_allclose(
        VarianceOfGradients().fit(GRADIENTS, LABELS).utility(), found, rtol=1e-9, atol=1e-12
    )
    assert (variance_of_gradients(np.ones((3, 4, 2)), [0, 0, 1, 1]) == 0).all()
    scores = VarianceOfGradients()
    scores.update(GRADIENTS[0], LABELS)
    with pytest.raises(DataError, match="row 0 was fed once"):
        scores.utility()


def test_self_influence_is_the_fall_of_the_loss():
    """A small step of gradient descent on one row lowers its loss by eta |g|^2."""
    rates = [0.1, 0.1, 0.05, 0.01]
    expected = sum(rate * norms**2 for rate, norms in zip(rates, NORMS, strict=True))
    np.testing.assert_allclose(self_influence(NORMS, rates), expected)
    np.testing.assert_allclose(SelfInfluence().fit(NORMS, rates).utility(), expected)
    x, w, eta = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.1, -0.2]), 1e-6
    loss = lambda v: np.log1p(np.exp(-(v @ x)))  # noqa: E731
    gradient = -x / (1 + np.exp(w @ x))
    fall = loss(w) - loss(w - eta * gradient)
    found = self_influence([[np.linalg.norm(gradient)]], [eta])[0]
    np.testing.assert_allclose(found, fall, rtol=1e-5)


def test_batches_and_runs_average():
    expected = np.mean([el2n(run, LABELS) for run in LOGITS], axis=0)
    np.testing.assert_allclose(EL2N().fit(LOGITS, LABELS).utility(), expected)
    scores, grand = EL2N(), GraNd()
    for run, norms in zip(LOGITS, NORMS, strict=True):
        for part in np.array_split(RNG.permutation(60), 7):
            scores.update(run[part], LABELS[part], rows=part)
            grand.update(norms[part], rows=part)
    np.testing.assert_allclose(scores.utility(), expected)
    np.testing.assert_allclose(scores.utility([5, 3]), expected[[5, 3]])
    np.testing.assert_allclose(grand.utility(), NORMS.mean(axis=0))
    np.testing.assert_allclose(GraNd().fit(NORMS).utility(), NORMS.mean(axis=0))
    assert top_k(scores.utility(), n=3).rows.tolist() == sorted(np.argsort(-expected)[:3])
    assert repr(scores) == "EL2N() fed 60 rows up to 4 times"


@pytest.mark.parametrize(
    "kind, feed",
    [
        (EL2N, lambda s, t: s.update(LOGITS[t], LABELS)),
        (GraNd, lambda s, t: s.update(NORMS[t])),
        (ForgettingCounts, lambda s, t: s.update(RIGHT[t])),
        (VarianceOfGradients, lambda s, t: s.update(GRADIENTS[t], LABELS)),
        (SelfInfluence, lambda s, t: s.update(NORMS[t], 0.1)),
    ],
)
def test_scores_go_on_from_their_state(kind, feed):
    whole, first = kind(), kind()
    for t in range(4):
        feed(whole, t)
        if t < 2:
            feed(first, t)
    state = first.state_dict()
    feed(first, 2)  # the state is a copy
    second = kind()
    second.load_state_dict(state)
    for t in (2, 3):
        feed(second, t)
    np.testing.assert_array_equal(second.utility(), whole.utility())
    other = GraNd if kind is EL2N else EL2N
    with pytest.raises(OptionError, match=f"the state is of '{kind.__name__}'"):
        other().load_state_dict(state)
    with pytest.raises(NotFittedError, match="was fed no rows"):
        kind().utility()


def test_wrong_calls_are_told():
    scores = GraNd()
    scores.update([1.0, 2.0], rows=[0, 3])
    with pytest.raises(DataError, match=r"2 of 4 rows were never fed \(first: row 1\)"):
        scores.utility()
    with pytest.raises(DataError, match="rows name a row twice"):
        scores.update([1.0, 2.0], rows=[1, 1])
    with pytest.raises(DataError, match="norms hold negative values"):
        scores.update([-1.0])
    with pytest.raises(DataError, match="1 of 2 rows hold missing or infinite values"):
        scores.update([1.0, np.nan])
    with pytest.raises(DataError, match="are they logits"):
        el2n([[2.0, -1.0]], [0], inputs="probabilities")
    with pytest.raises(OptionError, match="Unknown inputs 'p'. Choose one of 'logits'"):
        EL2N(inputs="p").update([[1.0, 2.0]], [0])
    with pytest.raises(DataError, match="class numbers from 0 to 1"):
        el2n([[1.0, 2.0]], [2])
    with pytest.raises(DataError, match="at least two checkpoints"):
        variance_of_gradients(GRADIENTS[:1], LABELS)


def test_scores_of_a_torch_model_find_flipped_digits():
    """Ten per cent of the labels of the digits are flipped; early scores put them on top."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    from dpdq.gradients import per_sample_gradient_norms, true_logit_input_gradients

    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    flipped = rng.random(len(y)) < 0.1
    y = np.where(flipped, (y + rng.integers(1, 10, len(y))) % 10, y)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    error, norm, trace = EL2N(), GraNd(), SelfInfluence()
    moved, forgotten = VarianceOfGradients(), ForgettingCounts()
    for seed in range(3):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        for _ in range(4):
            for batch in torch.randperm(len(y)).split(64):
                optimizer.zero_grad()
                loss(model(x[batch]), y[batch]).mean().backward()
                optimizer.step()
            if seed == 0:
                with torch.no_grad():
                    forgotten.update(model(x).argmax(1) == y)
                moved.update(true_logit_input_gradients(model, x, y), y)
                trace.update(per_sample_gradient_norms(model, loss, x, y, layers="last"), 0.2)
        error.update(model(x), y)
        norm.update(per_sample_gradient_norms(model, loss, x, y))
    found = {type(s).__name__: roc_auc_score(flipped, s.utility())
             for s in (error, norm, trace, forgotten, moved)}  # fmt: skip
    assert found["EL2N"] > 0.97
    assert found["GraNd"] > 0.95
    assert found["SelfInfluence"] > 0.95
    assert found["ForgettingCounts"] > 0.85
    assert found["VarianceOfGradients"] < found["EL2N"]  # the weakest of them, as measured
