import numpy as np
import pytest
from scipy.stats import binom
from tests.select.pools import genres

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.select import blind_guard, membership_test


def real_texts(seed, n):
    reference = genres()["reference"]
    rows = np.random.default_rng(seed).permutation(len(reference))[: 2 * n]
    texts = [reference[i] for i in rows]
    return texts[:n], texts[n:]


@pytest.mark.slow
def test_level_without_a_shift():
    """150 splits of one law: more rejections than 25 have chance below one in a million."""
    rejected = refused = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        members, others = real_texts(seed, 25)
        result = blind_guard(
            members,
            others,
            scores_members=rng.normal(1, 1, 25),
            scores_nonmembers=rng.normal(0, 1, 25),
            n_permutations=39,
            random_state=seed,
        )
        rejected += result.pvalue <= 0.05
        refused += result.evidence == "refused"
    assert refused <= rejected <= binom.isf(1e-6, 150, 0.05)


@pytest.mark.parametrize("shift", ["genre", "date", "length"])
def test_a_planted_shift_triggers_it(shift):
    members, others = real_texts(0, 150)
    if shift == "genre":
        others[:75] = genres()["docstrings"][:75]
    elif shift == "date":
        members = [t + f" (in {2019 + i % 2})" for i, t in enumerate(members)]
        others = [t + f" (in {2023 + i % 2})" for i, t in enumerate(others)]
    else:
        others = [t[:250] for t in others]
    rng = np.random.default_rng(1)
    result = membership_test(
        rng.normal(0.4, 1, 150),
        rng.normal(0, 1, 150),
        blind_members=members,
        blind_nonmembers=others,
        n_permutations=199,
        random_state=0,
    )
    assert result.evidence == "refused"
    assert result.pvalue is None
    assert result.guard.pvalue == 0.005
    assert result.guard.blind_auc.low > 0.55
    assert "adds nothing that is sure" in result.status


def test_evidence_beyond_the_shift_is_discounted():
    rng = np.random.default_rng(2)
    lengths = rng.normal(size=(600, 1))
    lengths[:300] += 0.5
    scores = rng.normal(size=600) + 3.0 * (np.arange(600) < 300)
    result = blind_guard(
        lengths[:300],
        lengths[300:],
        scores_members=scores[:300],
        scores_nonmembers=scores[300:],
        random_state=0,
    )
    assert result.evidence == "discounted"
    assert 0.2 < result.excess.low < result.excess.estimate < result.excess.high < 0.5
    assert result.excess.estimate == pytest.approx(
        result.model_auc.estimate - result.blind_auc.estimate, abs=0.02
    )
    assert "only the excess" in result.status


def test_features_of_any_shape_of_difference():
    """Equal means and other spreads: a line would not see it, the kernel does."""
    rng = np.random.default_rng(3)
    narrow, wide = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) * 2.5
    result = blind_guard(narrow, wide, random_state=0)
    assert result.evidence == "refused"
    assert result.model_auc is None
    assert blind_guard(narrow[:, 0], wide[:, 0], random_state=0).evidence == "refused"


def test_chunks_of_documents_as_units():
    """Thirty documents of five chunks, each with words of its own, dealt to sides by document:
    their words are foreknown only where a document is cut by the folds."""
    rejected = [0, 0]
    for seed in range(16):
        rng = np.random.default_rng(seed)
        texts, units = [], []
        for document in range(30):
            own = [f"d{seed}x{k}" for k in rng.integers(0, 10**6, 8)]
            texts += [" ".join(rng.choice(own, 12)) for _ in range(5)]
            units += [document] * 5
        for which, more in enumerate(
            ({}, {"units_members": units[:75], "units_nonmembers": units[75:]})
        ):
            result = blind_guard(
                texts[:75], texts[75:], n_permutations=39, random_state=seed, **more
            )
            rejected[which] += result.pvalue <= 0.05
    assert rejected[0] == 16
    assert rejected[1] <= binom.isf(1e-6, 16, 0.05)


def test_large_sides_are_drawn_from():
    rng = np.random.default_rng(4)
    result = blind_guard(rng.normal(size=(2000, 1)), rng.normal(size=(40, 1)), n_permutations=19)
    assert (result.n_members, result.n_nonmembers) == (1500, 40)
    assert 0.5 < result.detectable < 0.8


def test_what_is_refused():
    texts = ["a"] * 12
    with pytest.raises(DataError, match="members are 3; the blind test needs ten"):
        blind_guard(texts[:3], texts)
    with pytest.raises(InputTypeError, match="one side are texts and the other features"):
        blind_guard(texts, np.zeros((12, 1)))
    with pytest.raises(OptionError, match="scores_members and scores_nonmembers go together"):
        blind_guard(texts, texts, scores_members=np.zeros(12))
    with pytest.raises(DataError, match=r"scores_members has shape \(3,\); expected \(12,\)"):
        blind_guard(texts, texts, scores_members=np.zeros(3), scores_nonmembers=np.zeros(12))
    with pytest.raises(DataError, match="members have 2 features and nonmembers 1"):
        blind_guard(np.zeros((12, 2)), np.zeros((12, 1)))
    with pytest.raises(OptionError, match="level is 2; expected between 0 and 1"):
        blind_guard(texts, texts, level=2)
    assert blind_guard(texts, texts, random_state=0).evidence == "sound"
