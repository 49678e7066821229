import numpy as np
import pytest

from dpdq.distance import MMDTest, mmd_test
from dpdq.errors import NotFittedError


def normal(rng, n, d):
    return rng.normal(size=(n, d))


def test_reference_reused():
    rng = np.random.default_rng(19)
    q, p = normal(rng, 60, 2), normal(rng, 40, 2)
    test = MMDTest(random_state=5, n_permutations=29)
    with pytest.raises(NotFittedError, match=r"call fit\(q\) first"):
        test.test(p)
    assert test.fit(q).test(p) == mmd_test(q, p, random_state=5, n_permutations=29)
    assert repr(test) == "MMDTest(method='auto', n_permutations=29, reference q of 60 rows)"
    assert test.n_features_in_ == 2
