import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdq._random import as_generator, child_seed, mix64, row_keys
from dpdq.errors import InputTypeError


def test_every_kind_of_seed():
    assert as_generator(3).integers(1 << 30) == as_generator(np.int64(3)).integers(1 << 30)
    generator = np.random.default_rng(1)
    assert as_generator(generator) is generator
    first = as_generator(np.random.RandomState(7)).integers(1 << 30)  # noqa: NPY002
    again = as_generator(np.random.RandomState(7)).integers(1 << 30)  # noqa: NPY002
    assert first == again
    assert as_generator(None).integers(1 << 30) >= 0


@pytest.mark.parametrize("wrong", [True, -1, "7", 1.5])
def test_wrong_seeds_are_refused(wrong):
    with pytest.raises(InputTypeError, match="random_state"):
        as_generator(wrong)


def test_children_are_plain_integers_that_repeat():
    assert child_seed(as_generator(5)) == child_seed(as_generator(5))


@given(st.integers(0, 2**31), st.integers(0, 500), st.integers(1, 500))
def test_row_keys_do_not_depend_on_the_batches(seed, start, length):
    whole = row_keys(0, start + length, seed)
    assert np.array_equal(whole[start:], row_keys(start, start + length, seed))


def test_mix64_is_a_bijection_on_a_range():
    x = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix64(x))) == len(x)


def test_row_keys_are_uniform():
    # 64 cells of 1e5 keys: chi-square with 63 degrees; 140 is beyond its 1e-7 point.
    cells = np.bincount((row_keys(0, 100_000, 11) >> np.uint64(58)).astype(int), minlength=64)
    assert ((cells - 1562.5) ** 2 / 1562.5).sum() < 140
