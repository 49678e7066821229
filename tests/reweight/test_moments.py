"""Balance functions: by hand, names, missing values, rare levels, targets."""

import numpy as np
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.reweight import EntropyBalancing
from dpdq.reweight._problem import make_problem


def problem(q, p=None, **options):
    given = {
        "targets": None,
        "weights_q": None,
        "weights_p": None,
        "kept_q": None,
        "kept_p": None,
        "types": None,
        "bins": None,
        "moments": 1,
        "interactions": (),
    }
    return make_problem(q, p, **{**given, **options})


def names(found):
    return [margin.name for margin in found.margins]


def test_functions_by_hand():
    rng = np.random.default_rng(0)
    q, p = rng.normal(3, 2, (40, 2)), rng.normal(4, 2, (50, 2))
    found = problem(q, p, moments={"x0": 3}, interactions=[(0, 1)])
    assert names(found) == ["x0", "x1", "x0^2", "x0^3", "x0 × x1"]
    center = (q.mean(axis=0) + p.mean(axis=0)) / 2
    scale = np.sqrt((((q - center) ** 2).mean(axis=0) + ((p - center) ** 2).mean(axis=0)) / 2)
    z, v = (q - center) / scale, (p - center) / scale
    expected = np.stack([z[:, 0], z[:, 1], z[:, 0] ** 2, z[:, 0] ** 3, z[:, 0] * z[:, 1]])
    assert found.functions.matrix(found.q) == pytest.approx(expected)
    assert found.target[2] == pytest.approx((v[:, 0] ** 2).mean())
    assert found.margins[0].raw(found.target[0]) == pytest.approx(p[:, 0].mean())
    assert found.sd == pytest.approx(
        np.sqrt((expected.var(axis=1) + found.functions.mean(found.p, np.ones(50))[1]) / 2)
    )
    assert found.covariance_q == pytest.approx(np.cov(expected, bias=True))
    part = found.without("x1")
    assert names(part) == ["x0", "x0^2", "x0^3"]
    assert part.functions.matrix(part.q) == pytest.approx(expected[[0, 2, 3]])


def test_mixed_columns_missing_values_and_rare_levels():
    rng = np.random.default_rng(1)
    n = 400
    q = {
        "age": np.where(np.arange(n) % 10 == 0, np.nan, rng.normal(40, 10, n)),
        "town": ["Uri"] * 200 + ["Zug"] * 196 + ["Bern", "Chur", None, None],
        "owner": [True, False] * 200,
        "day": np.arange(n).astype("datetime64[D]"),
        "only_q": np.ones(n),
    }
    p = {name: values for name, values in q.items() if name != "only_q"}
    found = problem(q, p, interactions=[("town", "owner")])
    assert names(found)[:4] == ["age", "owner", "day", "age (missing)"]
    assert "town=(other)" in names(found)
    assert "town=(missing)" in names(found)
    assert "town=Zug × owner" in names(found)
    assert found.recipe.left_out == ("only_q",)
    assert found.recipe.levels[0].pooled == ("Bern", "Chur")
    values = dict(zip(names(found), found.target, strict=True))
    assert values["age (missing)"] == pytest.approx(0.1)
    assert values["town=(other)"] == pytest.approx(0.005)
    assert found.recipe.names == ["age", "town", "owner", "day"]


def test_cells_that_no_row_has_are_left_out():
    q = {"a": ["0", "0", "1"] * 5, "b": ["0", "1", "0"] * 5}
    found = problem(q, q, interactions="all")
    assert "a=1 × b=1" not in names(found)
    assert len(found.functions) == 7


def test_vectors_are_balanced_by_coordinate():
    rng = np.random.default_rng(2)
    q, p = ({"e": list(rng.normal(shift, 1, (300, 3)))} for shift in (0.0, 0.2))
    model = EntropyBalancing().fit(q, p)
    assert model.margins_ == ("e[0]", "e[1]", "e[2]")
    assert [each.column for each in model.sensitivity()] == ["e"]


def test_population_targets():
    q = {"age": [20.0, 30.0, 40.0, 50.0], "sex": ["f", "f", "m", "m"], "town": ["a", "b", "a", "b"]}
    joint = {("f", "a"): 1, ("f", "b"): 2, ("m", "a"): 3, ("m", "b"): 4}
    found = problem(q, targets={"age": 33.0, ("sex", "town"): joint})
    values = {m.name: m.raw(t) for m, t in zip(found.margins, found.target, strict=True)}
    assert values["age"] == pytest.approx(33)
    assert values["sex=m"] == pytest.approx(0.7)
    assert values["town=b"] == pytest.approx(0.6)
    assert values["sex=f × town=b"] == pytest.approx(0.2)
    assert found.p is None


def test_refusals():
    q = {"age": [20.0, 30.0, None, 50.0], "sex": ["f", "f", "m", "m"]}
    with pytest.raises(OptionError, match="moments is 4; give 1, 2 or 3"):
        problem(q, q, moments=4)
    with pytest.raises(OptionError, match="moments names column 'size'"):
        problem(q, q, moments={"size": 2})
    with pytest.raises(OptionError, match="interactions holds 'age'"):
        problem(q, q, interactions=["age"])
    with pytest.raises(OptionError, match="give different columns out of 'age', 'sex'"):
        problem(q, q, interactions=[("age", "age")])
    with pytest.raises(OptionError, match="Unknown interactions 'some'"):
        problem(q, q, interactions="some")
    with pytest.raises(DataError, match="targets name column 'town', which q lacks"):
        problem(q, targets={"town": 1})
    with pytest.raises(OptionError, match=r"targets\['sex'\] sum to 0"):
        problem(q, targets={"sex": {"f": 0, "m": 0}})
    with pytest.raises(OptionError, match="is -1; give a share or count"):
        problem(q, targets={"sex": {"f": -1, "m": 2}})
    with pytest.raises(DataError, match="missing values, of which its target mean says nothing"):
        problem(q, targets={"age": 30})
    with pytest.raises(OptionError, match="with targets give moments=1"):
        problem({"age": [1.0, 2.0]}, targets={"age": 1.5}, moments=2)
    with pytest.raises(DataError, match="'m'.*collect such rows under '.other.'"):
        problem(q, targets={"sex": {"f": 1}})
    with pytest.raises(DataError, match="a cell that the targets do not name"):
        problem(
            {"a": ["x", "y", "x"], "b": ["u", "u", "v"]},
            targets={("a", "b"): {("x", "u"): 1, ("y", "v"): 1, ("y", "u"): 1}},
        )
    text = [f"a long sentence with words number {i}" for i in range(50)]
    with pytest.raises(DataError, match="free text"):
        problem({"t": text}, {"t": text[::-1]})
    with pytest.raises(DataError, match="no column in common"):
        problem({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})


def test_new_rows_must_fit_the_recipe():
    q = {"age": [20.0, 30.0, 40.0, 50.0], "sex": ["f", "f", "m", "m"]}
    model = EntropyBalancing().fit(q, {"age": [35.0, 45.0, 30.0, 41.0], "sex": ["f", "m"] * 2})
    assert model.log_ratio({"sex": ["f"], "age": [33]}).shape == (1,)
    with pytest.raises(DataError, match="x has no column 'age'"):
        model.log_ratio({"sex": ["f"]})
    with pytest.raises(
        DataError, match="column 'sex' of x: 1 of 2 rows .first row 1. have a level"
    ):
        model.log_ratio({"sex": ["f", "d"], "age": [33, 34]})
    with pytest.raises(DataError, match="column 'age' of x: 1 of 1 values are missing"):
        model.log_ratio({"sex": ["f"], "age": [None]})
