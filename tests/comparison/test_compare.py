"""The main job: known answers, invariances, and what real data must show."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import dpdq
from dpdq.cli import app
from dpdq.errors import DataError, InputTypeError, OptionError


def gaussians(n=600, m=500, d=3, shift=0.6, seed=0):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    p[:, 0] += shift
    return q, p


@pytest.fixture(scope="module")
def compared():
    q, p = gaussians()
    return q, p, dpdq.compare(q=q, p=p, random_state=0)


def test_a_known_shift_is_found_and_measured(compared):
    q, _, c = compared
    assert c.verdict.shifted is True
    # AUC between N(0, 1) and N(0.6, 1) is Phi(0.6 / sqrt(2)) = 0.664.
    assert abs(c.classifier_test.auc.estimate - 0.664) < 0.04
    assert c.classifier_test.auc.low < 0.664 < c.classifier_test.auc.high
    # KL of a shift by 0.6 is 0.18; the bound lies below it.
    assert 0.05 < c.divergences.kl.low <= 0.18
    assert c.divergences.kl.low <= c.divergences.kl.estimate
    assert c.columns[0]["name"] == "x0"
    assert c.columns[0]["shifted"]
    assert abs(c.columns[0]["smd"] - 0.6) < 0.2
    # ESS / n = 1 / (1 + chi2) = exp(-0.36) = 0.70 for the true ratio.
    assert abs(c.weights.share_effective - np.exp(-0.36)) < 0.08
    assert np.exp(c.log_ratio_q).mean() == pytest.approx(1.0)
    truth = 0.6 * q[:, 0] - 0.18
    assert np.corrcoef(truth, c.log_ratio_q)[0, 1] > 0.95
    assert c.balance.max_abs_smd_after < 0.1 < c.balance.max_abs_smd_before
    assert c.overlap.ok


def test_the_result_reads_well(compared):
    _, _, c = compared
    text = repr(c)
    assert "AUC" in text
    assert c.verdict.sentence.split(":")[0] in text.replace("\n", " ")
    assert "<table" in c._repr_html_()
    assert "verdict" in dir(c)
    assert c.verdict["effect"]["auc"] == c.verdict.effect.auc
    with pytest.raises(AttributeError, match="a Comparison has no 'drift'"):
        _ = c.drift
    with pytest.raises(AttributeError, match="no 'nope' here"):
        _ = c.verdict.nope


def test_no_shift_is_not_called():
    q, p = gaussians(shift=0.0, seed=3)
    c = dpdq.compare(q, p, random_state=1)
    assert c.verdict.shifted is False
    assert c.divergences.kl.low == 0
    assert 0.5 < c.verdict.detectable.auc < 0.65


def test_same_seed_same_bytes(tmp_path):
    q, p = gaussians()
    for name, rows in (("q", q), ("p", p)):
        np.save(tmp_path / f"{name}.npy", rows)
    texts = []
    for run in ("one", "two"):
        out = tmp_path / run
        result = CliRunner().invoke(
            app, ["compare", str(tmp_path / "q.npy"), str(tmp_path / "p.npy"), "--out", str(out)]
        )
        assert result.exit_code == 0, result.stderr
        texts.append((out / "comparison.json").read_bytes())
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in texts[0]
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["dpdq"] == dpdq.__version__
    assert run["options"]["random_state"] == 0


def test_every_kind_of_table_gives_the_same_numbers(tmp_path):
    q, p = gaussians(200, 150)
    tables = [pa.table({f"x{j}": side[:, j] for j in range(3)}) for side in (q, p)]
    expected = dpdq.compare(q, p, random_state=0).to_dict()
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    torch = pytest.importorskip("torch")
    kinds = [
        (tables, pa.Table),
        ([table.to_pandas() for table in tables], pandas.DataFrame),
        ([polars.from_arrow(table) for table in tables], polars.DataFrame),
        ([torch.as_tensor(side) for side in (q, p)], pa.Table),
    ]
    for (have, want), kind in kinds:
        c = dpdq.compare(have, want, random_state=0)
        assert c.to_dict() == expected
        frame = c.weights_frame()
        assert isinstance(frame, kind)
        assert list(pa.table(frame).column_names) == ["row", "log_ratio", "weight"]


def test_an_encoder_for_images_and_texts():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(300, 1, 4, 4)), rng.normal(0.5, 1, size=(300, 1, 4, 4))
    c = dpdq.compare(q, p, encoder=lambda x: x.reshape(len(x), -1)[:, :5], random_state=0)
    assert c.verdict.shifted is True
    assert len(c.columns) == 5
    words = [["a short text"] * 60, ["a much longer text than that"] * 60]
    with pytest.raises(DataError, match="it must return one row of numbers an item"):
        dpdq.compare(*words, encoder=lambda x: np.zeros(len(x)))
    with pytest.raises(InputTypeError, match="with an encoder give a list"):
        dpdq.compare("q.parquet", "p.parquet", encoder=len)


def test_options_are_checked_before_anything_is_read():
    with pytest.raises(OptionError, match="prediction and prediction_proba are both given"):
        dpdq.compare("absent", "absent", prediction="a", prediction_proba="b")
    with pytest.raises(InputTypeError, match="encoder has type int"):
        dpdq.compare("absent", "absent", encoder=3)
    with pytest.raises(OptionError, match="Unknown value 'drop' for infinite"):
        dpdq.compare("absent", "absent", infinite="drop")
    with pytest.raises(OptionError, match="columns is empty"):
        dpdq.compare("absent", "absent", columns=[])
    with pytest.raises(InputTypeError, match="random_state"):
        dpdq.compare(np.zeros((3, 1)), np.zeros((3, 1)), random_state="seven")


def test_roles_are_never_features():
    rng = np.random.default_rng(0)
    sides = []
    for start in (0, 300):
        y = rng.integers(0, 2, 300)
        sides.append(
            pa.table(
                {
                    "x": rng.normal(size=300),
                    "key": np.arange(start, start + 300),
                    "day": np.arange(start, start + 300),
                    "shop": np.arange(start, start + 300) // 5,
                    "y": y,
                    "guess": rng.random(300),
                }
            )
        )
    c = dpdq.compare(
        *sides, id="key", time="day", group="shop", label="y", prediction_proba="guess",
        random_state=0,
    )  # fmt: skip
    assert [column["name"] for column in c.columns] == ["x"]
    assert {row["name"] for row in c.schema.ignored} == {"key", "day", "shop", "y", "guess"}
    assert c.classifier_test.fold_rule == "time"
    assert c.kernel_test.unit == "time block"
    assert set(c.performance) == {"log_loss", "brier", "roc_auc", "accuracy"}
    frame = c.weights_frame()
    assert frame.column_names == ["row", "key", "log_ratio", "weight"]
    assert frame["key"].to_pylist() == list(range(300))


def test_rows_of_a_group_are_not_told_by_their_neighbours():
    # 40 shops, each on one side, with their own level: rows tell the shop, the shop the side.
    rng = np.random.default_rng(4)
    levels = rng.normal(size=(40, 4))
    shop = np.repeat(np.arange(40), 30)
    rows = levels[shop] + 0.05 * rng.normal(size=(1200, 4))
    side = shop % 2 == 0
    tables = [
        pa.table({f"x{j}": rows[mask, j] for j in range(4)} | {"shop": shop[mask]})
        for mask in (side, ~side)
    ]
    features = ["x0", "x1", "x2", "x3"]
    blind = dpdq.compare(*tables, columns=features, random_state=0)
    told = dpdq.compare(*tables, columns=features, group="shop", random_state=0)
    assert blind.verdict.shifted is True
    assert told.verdict.shifted is False
    assert told.classifier_test.fold_rule == "group"


def test_a_reference_stands_for_its_file(tmp_path):
    q, p = gaussians(2000, 800)
    path = tmp_path / "ref.dpdq"
    sentence = dpdq.comparison.profile(q, path, random_state=0)
    assert "2,000 of 2,000 rows" in sentence
    direct, by_file = (dpdq.compare(side, p, random_state=0) for side in (q, path))
    assert by_file.to_dict() == direct.to_dict()
    assert "500 of 2,000" in dpdq.comparison.profile(q, path, rows=500, random_state=0)
    part = dpdq.compare(path, p, random_state=0)
    assert part.rows.q == 500
    assert part.verdict.shifted is True
    with pytest.raises(OptionError, match="must end in .dpdq"):
        dpdq.comparison.profile(q, tmp_path / "ref.zip")
    with pytest.raises(DataError, match="column 'z' is absent"):
        dpdq.comparison.profile(q, path, columns="z")


def test_a_quick_comparison_has_no_weights(tmp_path):
    q, p = gaussians()
    c = dpdq.compare(q, p, quick=True, random_state=0)
    assert c.verdict.shifted is None
    assert c.verdict.pvalue_reason.startswith("not run")
    assert c.log_ratio_q is None
    assert c.columns[0]["shifted"]
    with pytest.raises(DataError, match="a quick comparison has no weights"):
        c.weights_frame()
    assert set(c.save(tmp_path)) == {"comparison.json", "run.json", "report.html"}
    full = dpdq.compare(q, p, random_state=0)
    for quick_row, row in zip(c.columns, full.columns, strict=True):
        assert quick_row["pvalue"] == row["pvalue"]
        assert quick_row["effect"] == row["effect"]


def test_a_column_that_gives_it_away_is_named():
    rng = np.random.default_rng(0)
    sides = [
        pa.table({"x": rng.normal(size=200), "batch": [name] * 200}) for name in ("march", "april")
    ]
    c = dpdq.compare(*sides, random_state=0)
    assert any("'batch' alone tells" in warning for warning in c.warnings)
    assert c.schema.new_levels[0]["levels"] == ["april"]
    assert c.schema.vanished_levels[0]["levels"] == ["march"]
    assert c.overlap.ok is False
    assert len(c.overlap.rows) == 10
    assert "Overlap fails" in c.verdict.sentence


def test_missing_values_that_changed_are_named():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=500), rng.normal(size=500)
    p[:100] = np.nan
    c = dpdq.compare(pa.table({"a": q}), pa.table({"a": pa.array(p, from_pandas=True)}),
                     random_state=0)  # fmt: skip
    row = c.schema.missingness[0]
    assert (row["q"], row["p"]) == (0.0, 0.2)
    assert row["pvalue_adjusted"] < 1e-6
    assert c.verdict.shifted is True


# ------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def adult(shared_data):
    return pq.read_table(shared_data / "adult.parquet")


def split(table, mask):
    return table.filter(mask), table.filter(pc.invert(mask))


def test_adult_by_age_is_repaired_by_weights(adult):
    below, above = split(adult, pc.less(adult["age"], 40))
    c = dpdq.compare(q=below, p=above, label="class", columns=features_of(adult, "age"),
                     random_state=0)  # fmt: skip
    assert c.verdict.shifted is True
    assert c.overlap.ok is True
    assert c.balance.max_abs_smd_before > 0.5
    assert c.balance.max_abs_smd_after < 0.1
    assert c.label_shift.pvalue < 1e-6
    assert c.slices
    assert all(row["low"] > 1 or row["high"] < 1 for row in c.slices)


def features_of(table, *without):
    return [name for name in table.column_names if name not in {*without, "class"}]


def test_adult_by_sex_is_refused_where_p_is_out_of_reach(adult):
    men, women = split(adult, pc.equal(adult["sex"], "Male"))
    c = dpdq.compare(q=men, p=women, columns=features_of(adult, "sex"), random_state=0)
    assert c.overlap.ok is False
    assert "No weighting of q can repair this" in c.overlap.sentence
    worst = {column["name"] for row in c.outliers for column in row["columns"]}
    assert "relationship" in worst
    named = dpdq.compare(
        q=men, p=women, columns=features_of(adult, "sex", "relationship", "marital-status"),
        random_state=0,
    )  # fmt: skip
    assert named.overlap.ok is True
    assert named.balance.max_abs_smd_after < 0.1


@pytest.fixture(scope="module")
def bike(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet")
    return split(table, pc.equal(table["yr"], 0))


BIKE = ["season", "mnth", "hr", "weekday", "workingday", "weathersit", "temp", "atemp", "hum",
        "windspeed"]  # fmt: skip


def test_bike_is_concept_shift_and_no_feature_shift(bike):
    first, second = bike
    blocked = dpdq.compare(q=first, p=second, columns=BIKE, label="cnt", time="instant",
                           random_state=0)  # fmt: skip
    assert abs(blocked.classifier_test.auc.estimate - 0.48) < 0.06
    assert blocked.verdict.shifted is False
    assert blocked.concept_shift.detected is True
    assert "Concept shift" in blocked.verdict.sentence
    assert blocked.concept_shift.effect.low > 0


def test_bike_shuffled_folds_see_a_shift_that_is_not_there(bike):
    first, second = bike
    shuffled = dpdq.compare(q=first, p=second, columns=BIKE, random_state=0)
    assert abs(shuffled.classifier_test.auc.estimate - 0.79) < 0.06
    assert shuffled.verdict.shifted is True
