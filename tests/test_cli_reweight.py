"""`dpdq reweight`: weights, totals, kept weighters, rows never seen, and what is refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dpdq import cli
from dpdq.comparison.balancing import balance, method_names, new_weighter
from dpdq.comparison.totals import read_totals
from dpdq.errors import DataError, OptionError
from dpdq.reweight import EntropyBalancing, load

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments):
    return CliRunner().invoke(cli.app, ["reweight", *map(str, arguments)])


def rows(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + 5 * shift, 10, n)
    town = rng.choice(["Uri", "Zug", "Bern"], n, p=[0.5 - 0.2 * shift, 0.3, 0.2 + 0.2 * shift])
    income = 2 * age + 10 * (town == "Zug") + rng.normal(0, 5, n)
    return pa.table(
        {
            "who": [f"{seed}-{i}" for i in range(n)],
            "age": age,
            "town": town,
            "income": income,
            "rich": np.where(income > 90, "yes", "no"),
            "design": rng.integers(0, 4, n),
        }
    )


Q, P = rows(1500, 0), rows(900, 1, 0.7)
ROLES = ("--columns", "age,town", "--id", "who")


@pytest.fixture
def sides(tmp_path):
    pq.write_table(Q, tmp_path / "have.parquet")
    pyarrow.csv.write_csv(P, tmp_path / "want.csv")
    return tmp_path / "have.parquet", tmp_path / "want.csv"


def test_weights_balance(sides, tmp_path):
    result = call(*sides, *ROLES, "-o", tmp_path / "w.parquet")
    assert result.exit_code == 0, result.stderr
    assert "Weighting reaches p: all 4 margins balance" in result.stdout
    assert result.stdout.strip().endswith(f"wrote {tmp_path / 'w.parquet'}")
    table = pq.read_table(tmp_path / "w.parquet")
    assert table.column_names == ["row", "who", "log_ratio", "weight"]
    assert table["row"].to_pylist() == list(range(1500))
    assert table["who"].to_pylist() == Q["who"].to_pylist()
    weights = table["weight"].to_numpy()
    by_hand = EntropyBalancing().fit(Q.select(["age", "town"]), P.select(["age", "town"]))
    assert weights == pytest.approx(by_hand.weights_, rel=1e-9)
    assert weights.mean() == pytest.approx(1.0)
    assert np.exp(table["log_ratio"].to_numpy()) == pytest.approx(weights, rel=1e-9)
    assert np.average(Q["age"], weights=weights) == pytest.approx(np.mean(P["age"].to_numpy()))
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "have.parquet", "w.parquet", "want.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["entropy", "cbps", "cbps-over", "ipw"])
def test_methods(method, sides):
    result = call(*sides, *ROLES, "--method", method, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["method"] == method
    assert found["balance"]["largest_after"] < 0.1 < found["balance"]["largest_before"]


@pytest.mark.parametrize("method", ["overlap", "stable", "kernel", "energy"])
def test_methods_for_other_aims(method, tmp_path):
    pq.write_table(Q.slice(0, 300), tmp_path / "q.parquet")
    pq.write_table(P.slice(0, 200), tmp_path / "p.parquet")
    result = call(tmp_path / "q.parquet", tmp_path / "p.parquet", *ROLES, "--method", method,
                  "--label", "rich", "--out", tmp_path / "page")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "page" / "report.html").read_text()
    assert ("on the overlap, by weighting" in page) == (method == "overlap")
    if method in ("kernel", "energy"):
        refused = call(tmp_path / "q.parquet", tmp_path / "p.parquet", "--method", method,
                       "--save-model", tmp_path / "m.dpdq")  # fmt: skip
        assert refused.exit_code == 2
        assert "Balancing" in refused.stderr


def test_methods_of_levels(sides):
    for method in ("raking", "post-stratification"):
        result = call(*sides, *ROLES, "--method", method, "--bins", 4, "--json")
        assert result.exit_code == 0, result.stderr
    numbers = call(*sides, *ROLES, "--method", "raking", "--json")
    assert numbers.exit_code == 2
    assert "'age' holds numbers" in numbers.stderr


def test_options_reach_the_method(sides):
    options = ("--cap", 2.5, "--tolerance", 0.05, "--moments", 2, "--interactions", "age:town")
    result = call(*sides, *ROLES, *options, "--weights-q", "design", "--weights-p", "design",
                  "--types", "town=categorical", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    names = {each["name"] for each in found["balance"]["margins"]}
    assert {"age", "age^2", "age × town=Zug"} <= names
    assert 0 < found["balance"]["largest_after"] <= 0.0500001
    design = Q["design"].to_numpy()
    assert found["rows"]["used"] == int((design > 0).sum())
    assert found["columns_left_out"] == []


def test_design_weights_are_in_the_weights(sides, tmp_path):
    result = call(*sides, *ROLES, "--weights-q", "design", "-o", tmp_path / "w.parquet",
                  "--save-model", tmp_path / "m.dpdq")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    table, design = pq.read_table(tmp_path / "w.parquet"), Q["design"].to_numpy()
    weights = table["weight"].to_numpy()
    assert (weights[design == 0] == 0).all()
    assert weights[design > 0].mean() == pytest.approx(1.0)
    kept = table["log_ratio"].filter(pa.array(design > 0)).to_numpy()
    assert table["log_ratio"].null_count == int((design == 0).sum())
    assert np.average(np.exp(kept), weights=design[design > 0]) == pytest.approx(1.0)
    assert kept == pytest.approx(load(tmp_path / "m.dpdq").log_ratio(Q)[design > 0], abs=1e-9)


def test_label_estimate_advice_and_page(sides, tmp_path):
    result = call(*sides, *ROLES, "--label", "income", "--out", tmp_path / "page")
    assert result.exit_code == 0, result.stderr
    assert "valid only if P(Y|X) is unchanged" in result.stdout
    found = json.loads((tmp_path / "page" / "balance.json").read_text())
    (row,) = found["label"]["estimates"]
    truth = float(np.mean(P["income"].to_numpy()))
    assert abs(row["p"]["estimate"] - truth) < abs(row["q"] - truth) / 5
    assert row["p_observed"]["estimate"] == pytest.approx(truth)
    assert found["concept_shift"]["detected"] is False
    assert found["advice"]["weight"] is False
    assert [each["column"] for each in found["sensitivity"]][:1] == ["age"]
    assert found["sensitivity"][0]["change"] is not None
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Weighting reaches p" in page
    assert json.loads((tmp_path / "page" / "run.json").read_text())["q"] == {"name": "have.parquet"}
    classes = call(*sides, *ROLES, "--label", "rich", "--json")
    (row,) = json.loads(classes.stdout)["label"]["estimates"]
    assert row["name"] == "yes"


def test_label_that_is_missing_somewhere(tmp_path):
    labels = [None, *Q["income"].to_pylist()[1:]]
    q = Q.set_column(3, "income", pa.array(labels))
    pq.write_table(q, tmp_path / "q.parquet")
    pq.write_table(P.drop_columns(["income"]), tmp_path / "p.parquet")
    result = call(tmp_path / "q.parquet", tmp_path / "p.parquet", *ROLES, "--label", "income",
                  "--json")  # fmt: skip
    found = json.loads(result.stdout)
    assert found["label"] is None
    assert "1 of 1,500 rows of q have no label 'income'" in found["warnings"][0]


# ------------------------------------------------------------------ totals


def totals(path, text):
    path.write_text(text)
    return path


def test_totals_from_a_file(sides, tmp_path):
    file = totals(
        tmp_path / "totals.csv",
        "variable,level,total,share,mean\n"
        "town,Uri,3000,,\ntown,Zug,3000,,\ntown,Bern,4000,,\nage,,,,44.5\n",
    )
    result = call(sides[0], "--targets", file, "-o", tmp_path / "w.parquet")
    assert result.exit_code == 0, result.stderr
    weights = pq.read_table(tmp_path / "w.parquet")["weight"].to_numpy()
    town = np.asarray(Q["town"])
    assert np.average(Q["age"], weights=weights) == pytest.approx(44.5)
    assert np.average(town == "Bern", weights=weights) == pytest.approx(0.4)
    joint = totals(
        tmp_path / "joint.csv",
        "variable,level,share\n"
        + "".join(
            f"town:rich,{t}:{r},{s}\n"
            for t, r, s in (("Uri", "yes", 0.2), ("Uri", "no", 0.2), ("Zug", "yes", 0.2),
                            ("Zug", "no", 0.1), ("Bern", "yes", 0.1), ("Bern", "no", 0.2))
        ),
    )  # fmt: skip
    for method in ("raking", "post-stratification", "entropy"):
        result = call(
            sides[0], "--targets", joint, "--method", method, "-o", tmp_path / "w.parquet"
        )
        assert result.exit_code == 0, result.stderr
        weights = pq.read_table(tmp_path / "w.parquet")["weight"].to_numpy()
        cell = (town == "Zug") & (np.asarray(Q["rich"]) == "yes")
        assert np.average(cell, weights=weights) == pytest.approx(0.2)


HEAD = "variable,level,total,share,mean\n"
WRONG = {
    "variable,level\na,b\n": "expected 'variable', 'level' and one of 'total', 'share', 'mean'",
    HEAD + "city,Uri,1,,\n": "row 0: variable 'city' is no column of q, which has",
    HEAD + "town,Uri,1,0.5,\n": "row 0 has 2 of total, share, mean; fill in exactly one",
    HEAD + "town,Uri,,,\n": "row 0 has 0 of total, share, mean",
    HEAD + "town,Uri,1,,\ntown,Zug,,0.5,\n": "row 1: 'town' has a share after a total",
    HEAD + "town,Uri,1,,\ntown,Uri,2,,\n": "row 1: 'town' 'Uri' stands there twice",
    HEAD + "town,Uri,-1,,\n": "row 0: the total of 'town' 'Uri' is -1; expected >= 0",
    HEAD + "town,,3,,\n": "row 0: 'town' has a total without a level",
    HEAD + "age,old,,,41\n": "row 0: the mean of 'age' has the level 'old'",
    HEAD + "age,,,,41\nage,,,,42\n": "row 1: the mean of 'age' stands there twice",
    HEAD + "town:rich,,,,1\n": "row 0: 'town:rich' are two columns",
    HEAD + "town:rich,Uri,,1,\n": "has 1 levels; expected 2, joined by ':'",
    HEAD + "town,Uri,,0.5,\ntown,Zug,,0.3,\n": "the shares of 'town' sum to 0.8; expected 1",
    HEAD + "town,Uri,many,,\n": "row 0: the total is 'many'; expected a number",
    HEAD + "town,Uri,inf,,\n": "row 0: the total is inf; expected a finite number",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_totals_are_refused_by_row(text, tmp_path):
    with pytest.raises(DataError, match=re.escape(WRONG[text])):
        read_totals(totals(tmp_path / "t.csv", text), Q.column_names)


def test_totals_of_numbers_as_levels(tmp_path):
    file = totals(tmp_path / "t.csv", "variable,level,share\ndesign,0,0.5\ndesign,1,0.5\n")
    assert read_totals(file, Q.column_names) == {"design": {"0": 0.5, "1": 0.5}}


# ------------------------------------------------------------------ rows never seen


def test_apply_gives_the_bits_of_the_fit(sides, tmp_path):
    made = call(*sides, *ROLES, "-o", tmp_path / "w.parquet", "--save-model", tmp_path / "m.dpdq")
    assert made.exit_code == 0, made.stderr
    result = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "v.parquet",
                  "--id", "who")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "1,500 rows are worth" in result.stdout
    fit, applied = (pq.read_table(tmp_path / f"{name}.parquet") for name in "wv")
    by_hand = EntropyBalancing().fit(Q.select(["age", "town"]), P.select(["age", "town"]))
    assert np.array_equal(applied["log_ratio"].to_numpy(), by_hand.log_ratio(Q))
    assert applied["weight"].to_numpy() == pytest.approx(fit["weight"].to_numpy(), rel=1e-9)
    assert applied["who"].to_pylist() == Q["who"].to_pylist()
    weighted = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "d.parquet",
                    "--weights-q", "design", "--json")  # fmt: skip
    assert json.loads(weighted.stdout)["n_zero"] == int((Q["design"].to_numpy() == 0).sum())
    other = call("--apply", tmp_path / "m.dpdq", sides[1], "-o", tmp_path / "p.parquet")
    assert other.exit_code == 0


def test_apply_gives_the_same_bits_on_all_engines(sides, tmp_path):
    call(*sides, *ROLES, "--save-model", tmp_path / "m.dpdq")
    new = rows(70_000, 5)
    pq.write_table(new, tmp_path / "new.parquet", row_group_size=20_000)
    common = ("--apply", tmp_path / "m.dpdq", tmp_path / "new.parquet", "--id", "who")
    found = []
    for place, options in enumerate(
        (
            (),
            ("--engine", "pool", "--n-jobs", 2),
            ("--engine", "shards", "--parts", tmp_path / "parts", "--rank", 0, "--world-size", 1),
            ("--parts", tmp_path / "parts"),  # goes on from the finished parts
        )
    ):
        path = tmp_path / f"{place}.parquet"
        result = call(*common, *options, "-o", path)
        assert result.exit_code == 0, result.stderr
        found.append(path.read_bytes())
    assert len(set(found)) == 1


@pytest.mark.slow
def test_apply_keeps_no_rows_in_memory(sides, tmp_path):
    """Two million rows of 8 bytes a number pass through less than 200 MiB above an empty start."""
    call(*sides, "--columns", "age", "--save-model", tmp_path / "m.dpdq")
    n, block = 2_000_000, 250_000
    with pq.ParquetWriter(tmp_path / "new.parquet", pa.schema([("age", pa.float64())])) as writer:
        for seed in range(n // block):
            age = np.random.default_rng(seed).normal(40, 10, block)
            writer.write_table(pa.table({"age": age}))
    code = (
        "import resource, sys\n"
        "from dpdq.comparison.applying import apply_weights\n"
        "import dpdq.reweight.saved, dpdq.reweight.scoring, pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "apply_weights(*sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code]
    command += [str(tmp_path / name) for name in ("m.dpdq", "new.parquet", "w.parquet")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scale = 1024 if sys.platform != "darwin" else 1
    assert int(shown) * scale < 200 * 2**20
    assert pq.read_metadata(tmp_path / "w.parquet").num_rows == n


def test_nothing_is_half_written(sides, tmp_path):
    call(*sides, *ROLES, "--save-model", tmp_path / "m.dpdq")
    strange = rows(70_000, 5)
    town = strange["town"].to_pylist()
    town[-1] = "Genf"
    pq.write_table(strange.set_column(2, "town", pa.array(town)), tmp_path / "new.parquet")
    target = tmp_path / "w.parquet"
    target.write_bytes(b"old")
    before = set(os.listdir(tmp_path))
    result = call("--apply", tmp_path / "m.dpdq", tmp_path / "new.parquet", "-o", target)
    assert result.exit_code == 2
    assert "'town' of x: 1 of 4464 rows" in result.stderr
    assert "counting rows from row 65,536" in result.stderr
    assert target.read_bytes() == b"old"
    assert set(os.listdir(tmp_path)) == before
    missing = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "no" / "w.parquet")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


# ------------------------------------------------------------------ what is refused


def test_infeasible_problems_name_the_margin(sides, tmp_path):
    pq.write_table(
        Q.filter(pa.compute.not_equal(Q["town"], "Zug")), tmp_path / "few.parquet"
    )  # fmt: skip
    result = call(tmp_path / "few.parquet", sides[1], *ROLES, "-o", tmp_path / "w.parquet")
    assert result.exit_code == 2
    assert result.stderr.startswith("dpdq: ")
    assert "town=Zug" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "w.parquet").exists()


REFUSED = {
    (): "nothing to write: give -o",
    ("-o", "w.parquet", "--method", "magic"): "Unknown method 'magic'. Choose one of 'entropy'",
    ("--json", "--method", "cbps", "--cap", "3"): "cap is of no use to method 'cbps'",
    ("--json", "--method", "raking", "--tolerance", "0.1"): "tolerance is of no use to method",
    ("--json", "--interactions", "age"): "--interactions holds 'age'",
    ("--json", "--columns", "age,income", "--label", "income"): "'income' has another role",
    ("--json", "--columns", "nothing"): "has no column 'nothing'",
    ("--json", "--weights-q", "town"): "must be numbers",
    ("--json", "--label", "nothing"): "has no column 'nothing'",
    ("--json", "--targets", "t.csv"): "give either WANT",
    ("--json", "--engine", "pool"): "belong to --apply",
    ("--json", "--moments", "7"): "moments is 7",
    ("--json", "--types", "town"): "--types holds 'town'",
    ("--save-model", "model.zip"): "it must end in .dpdq",
    ("--apply", "m.dpdq", "-o", "w.parquet"): "WANT belongs to a fit",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_refusals(options, sides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*sides, *options)
    assert result.exit_code == 2
    assert REFUSED[options] in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["have.parquet", "want.csv"]


def test_apply_refusals(sides, tmp_path):
    assert "--apply needs -o" in call("--apply", tmp_path / "m.dpdq", sides[0]).stderr
    absent = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "w.parquet")
    assert "does not exist" in absent.stderr
    call(*sides, *ROLES, "--save-model", tmp_path / "m.dpdq")
    other = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "w.parquet", "--cap", 3)
    assert "--cap belongs to a fit" in other.stderr
    wrong = call("--apply", tmp_path / "m.dpdq", sides[0], "-o", tmp_path / "w", "--id", "nobody")
    assert "has no column 'nobody'" in wrong.stderr


def test_methods_that_exist_can_be_made():
    assert {"entropy", "cbps", "cbps-over", "ipw", "raking"} <= set(method_names())
    for name in method_names():
        assert new_weighter(name, random_state=0) is not None
    with pytest.raises(OptionError, match="bins is of no use to method 'entropy'; it belongs to"):
        new_weighter("entropy", bins=3)


def test_in_memory_and_reference(tmp_path):
    found = balance(Q, P, columns=["age", "town"], label="income")
    assert "Weighting reaches p" in repr(found)
    assert found.run["q"] == {"name": None}
    assert found.to_dict()["verdict"]["ok"] is True
    CliRunner().invoke(cli.app, ["profile", str(save_table(Q, tmp_path)), "-o",
                                 str(tmp_path / "ref.dpdq")])  # fmt: skip
    with pytest.raises(DataError, match="is a reference, a sample of q"):
        balance(tmp_path / "ref.dpdq", P)


def save_table(table, folder):
    pq.write_table(table, folder / "table.parquet")
    return folder / "table.parquet"


# ------------------------------------------------------------------ the documentation


def test_every_option_is_described():
    shown = subprocess.run(
        [sys.executable, "-m", "dpdq.cli", "reweight", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    text = (ROOT / "docs" / "commands" / "reweight.md").read_text()
    assert len(options) >= 24
    for option in options:
        assert f"`{option}" in text, f"{option} is not described"
    for method in method_names():
        assert f"`{method}`" in text, f"method {method} is not described"


def test_the_documentation_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "commands" / "reweight.md").read_text()
    space = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M):
        exec(compile(code, "reweight.md", "exec"), space)  # the documentation's own code
    assert space["history"][-1] < space["history"][0]
    assert space["drawn"] == pytest.approx(space["wanted"], abs=0.05)


@pytest.mark.slow
def test_adult_by_sex(shared_data, tmp_path):
    """Without relationship weights balance; with relationship crossed by status nothing does."""
    table = pq.read_table(shared_data / "adult.parquet")
    male = np.asarray(table["sex"].cast(pa.string())) == "Male"
    pq.write_table(table.filter(pa.array(male)), tmp_path / "men.parquet")
    pq.write_table(table.filter(pa.array(~male)), tmp_path / "women.parquet")
    files = (tmp_path / "men.parquet", tmp_path / "women.parquet")
    result = call(*files, "--columns", "age,education-num,race,hours-per-week,workclass",
                  "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["balance"]["largest_after"] < 1e-9
    result = call(*files, "--columns", "relationship,marital-status,occupation,age",
                  "--interactions", "relationship:marital-status", "--json")  # fmt: skip
    assert result.exit_code == 2
    assert "relationship=" in result.stderr
