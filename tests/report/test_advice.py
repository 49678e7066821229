"""What to do next follows from the numbers."""

from __future__ import annotations

import pytest
from tests.report import example

from dpdq.report import next_steps


def said(c):
    return " ".join(next_steps(c))


def test_shift_with_overlap_asks_for_weights():
    text = said(example.full())
    assert "Use the weights of q for training and for evaluation (worth 12,613 rows)" in text
    assert "Look first at capital-gain, age" in text
    assert "5.64 times as common" in text


def test_failed_overlap_forbids_weights():
    text = said(example.refused())
    assert "Do not rely on weights: 31.2" in text
    assert "Use the weights" not in text
    assert "Collect labels from p" in text


def test_bad_weights_are_not_recommended():
    c = example.full()
    c["weights"]["ok"] = False
    assert "too few rows carry them" in said(c)
    assert "Use the weights" not in said(c)


def test_slice_that_is_only_in_p():
    c = example.full()
    c["slices"].append(
        {
            "rule": "sex = X",
            "share_q": 0.0,
            "share_p": 0.1,
            "ratio": None,
            "low": 29.7,
            "high": None,
        }
    )
    assert "Rows with sex = X are at least 29.7 times as common" in said(c)


def test_types_come_first():
    assert next_steps(example.full())[0].startswith("Make the types agree first: zip")


def test_quick_points_to_the_whole():
    assert "Run without quick mode" in said(example.quick())
    assert "Run without quick mode" not in said(example.full())


def test_nothing_to_do():
    c = {"verdict": {"shifted": False, "detectable": {"auc": 0.534}}, "ratio": {"estimator": "x"}}
    assert next_steps(c) == [
        "Nothing has to be done; a difference below AUC 0.534 would have gone unseen."
    ]
    c["verdict"]["detectable"] = None
    assert next_steps(c) == ["Nothing has to be done."]


@pytest.mark.parametrize("key", list(example.full(2)))
def test_any_part_may_be_null(key):
    assert next_steps(example.full(2) | {key: None})
