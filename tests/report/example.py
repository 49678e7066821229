"""Comparison dictionaries like those that a comparison writes, made from drawn samples.

``full`` holds every part; ``quick`` has columns only; ``refused`` fails overlap; ``subset`` has a p
that is part of q; ``hostile`` is full of names and cells that try to break the page.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "a very long column name " * 40,
    "line one\nline two\ttab\x00\x1b[31mred",
    "\u202egnp.exe \u0627\u0644\u0639\u0645\u0631 \u05d2\u05d9\u05dc",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family \u7530\u4e2d\u592a\u90ce",
    "{{ 7 * 7 }}{% raw %}",
    "</style></script></svg><svg onload=alert(1)>",
    "lone \ud800 surrogate",
    "javascript:alert(1)",
    "",
)

_NAMES = (
    ("age", 39, 13, 8, 1.1),
    ("hours-per-week", 40, 12, -5, 1.0),
    ("capital-gain", 900, 700, 500, 1.6),
    ("education-num", 10, 2.5, 1.4, 0.9),
    ("fnlwgt", 189_000, 105_000, 2_000, 1.0),
    ("balance", 1_200, 2_400, 300, 1.2),
    ("duration", 258, 120, 4, 1.0),
    ("campaign", 2.7, 1.1, 0.0, 1.0),
)
_LEVELS = (
    (
        "workclass",
        ["Private", "Self-emp-not-inc", "Local-gov", "State-gov", "Federal-gov", "other"],
    ),
    (
        "education",
        [
            "HS-grad",
            "Some-college",
            "Bachelors",
            "Masters",
            "Assoc-voc",
            "11th",
            "Assoc-acdm",
            "10th",
            "7th-8th",
            "Prof-school",
            "9th",
            "Doctorate",
            "other",
        ],
    ),
    ("marital-status", ["Married-civ-spouse", "Never-married", "Divorced", "Separated", "Widowed"]),
    ("sex", ["Male", "Female"]),
    ("native-country", ["United-States", "Mexico", "Philippines", "Germany", "Canada", "other"]),
)


def _js(q: np.ndarray, p: np.ndarray) -> float:
    m = (q + p) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.where(q > 0, q * np.log(q / m), 0.0).sum()
        b = np.where(p > 0, p * np.log(p / m), 0.0).sum()
    return float((a + b) / 2)


def _psi(q: np.ndarray, p: np.ndarray) -> float:
    q, p = (q + 1e-4) / (1 + 1e-4 * len(q)), (p + 1e-4) / (1 + 1e-4 * len(p))
    return float(np.sum((p - q) * np.log(p / q)))


def _column(name: str, kind: str, hist: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    q, p = np.array(hist["q"]), np.array(hist["p"])
    psi = _psi(q, p)
    pvalue = float(math.exp(-400 * psi))
    return {
        "name": name,
        "kind": kind,
        "test": "Kolmogorov-Smirnov" if kind == "numeric" else "chi-squared",
        "statistic": float(np.abs(np.cumsum(q - p)).max()),
        "pvalue": pvalue,
        "pvalue_adjusted": min(1.0, pvalue * 1.7),
        "effect": {"measure": "psi", "estimate": psi, "low": 0.86 * psi, "high": 1.15 * psi},
        "psi": psi,
        "jensen_shannon": _js(q, p),
        "wasserstein": float(np.abs(np.cumsum(q - p)).mean()) if kind == "numeric" else None,
        "smd": float((p - q).max() * 3),
        "shifted": psi > 0.05,
        "missing": {"q": 0.0123, "p": 0.0},
        "summary": summary,
        "histogram": hist,
    }


def _numeric(name: str, mean: float, sd: float, move: float, scale: float, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    q, p = rng.normal(mean, sd, 4_000), rng.normal(mean + move, sd * scale, 3_000)
    if name in ("capital-gain", "balance"):
        q, p = np.exp(q / sd / 2), np.exp(p / sd / 2)
    edges = np.linspace(*np.quantile(np.concatenate([q, p]), [0.005, 0.995]), 25)
    hq, hp = (np.histogram(np.clip(s, edges[0], edges[-1]), edges)[0] / len(s) for s in (q, p))
    hw = 0.93 * hp + 0.07 * hq
    hist = {
        "kind": "numeric",
        "edges": edges.tolist(),
        "labels": None,
        "q": hq.tolist(),
        "p": hp.tolist(),
        "q_weighted": hw.tolist(),
    }

    def numbers(s: np.ndarray) -> dict[str, float]:
        return {
            "mean": float(s.mean()),
            "sd": float(s.std()),
            "min": float(s.min()),
            "q25": float(np.quantile(s, 0.25)),
            "median": float(np.median(s)),
            "q75": float(np.quantile(s, 0.75)),
            "max": float(s.max()),
        }

    return _column(name, "numeric", hist, {"q": numbers(q), "p": numbers(p)})


def _levels(name: str, labels: list[str], seed: int) -> dict:
    rng = np.random.default_rng(seed)
    q = np.sort(rng.dirichlet(np.full(len(labels), 1.2)))[::-1]
    p = q * np.exp(rng.normal(0, 0.45, len(labels)))
    p /= p.sum()
    hist = {
        "kind": "levels",
        "edges": None,
        "labels": labels,
        "q": q.tolist(),
        "p": p.tolist(),
        "q_weighted": (0.9 * p + 0.1 * q).tolist(),
    }

    def top(s: np.ndarray) -> dict[str, Any]:
        order = np.argsort(-s)[:3]
        return {
            "n_levels": len(labels),
            "top": [{"level": labels[k], "share": float(s[k])} for k in order],
        }

    return _column(name, "categorical", hist, {"q": top(q), "p": top(p)})


def columns(n: int) -> list[dict[str, Any]]:
    """``n`` columns of mixed kinds, biggest difference first."""
    out: list[dict[str, Any]] = []
    for k in range(n):
        again = f" {k // 14 + 1}" if k >= 14 else ""
        j = k % 14
        if j == 13:
            day = 86_400.0
            edges = [1_293_840_000.0 + 30 * day * i for i in range(13)]
            rng = np.random.default_rng(k)
            q, p = rng.dirichlet(np.full(12, 6.0)), rng.dirichlet(np.full(12, 6.0))
            hist = {
                "kind": "numeric",
                "edges": edges,
                "labels": None,
                "q": q.tolist(),
                "p": p.tolist(),
                "q_weighted": (0.8 * p + 0.2 * q).tolist(),
            }
            out.append(
                _column(
                    f"date{again}",
                    "datetime",
                    hist,
                    {
                        "q": {"min": "2011-01-01", "max": "2011-12-26"},
                        "p": {"min": "2011-01-02", "max": "2011-12-20"},
                    },
                )
            )
        elif j % 13 < 8:
            name, mean, sd, move, scale = _NAMES[j % 13]
            out.append(_numeric(name + again, mean, sd, move, scale, k))
        else:
            name, labels = _LEVELS[j % 13 - 8]
            out.append(_levels(name + again, list(labels), k))
    return sorted(out, key=lambda c: -c["effect"]["estimate"])


def _estimate(value: float, spread: float = 0.03) -> dict[str, float]:
    return {"estimate": value, "low": value - spread, "high": value + spread}


def full(n_columns: int = 14) -> dict[str, Any]:
    """A comparison with every part."""
    cols = columns(n_columns)
    features = []
    for c in cols:
        names = (
            [c["name"]]
            if c["kind"] != "categorical"
            else [f"{c['name']} = {level}" for level in c["histogram"]["labels"][:4]]
        )
        for i, name in enumerate(names):
            before = 0.62 * c["effect"]["estimate"] / (0.4 + i) + 0.013
            features.append(
                {
                    "name": name,
                    "column": c["name"],
                    "before": before,
                    "after": before * 0.09 * (-1) ** i,
                }
            )
    features = sorted(features, key=lambda f: -abs(f["before"]))[:60]
    used = {
        "columns": (24_120, 12_000),
        "kernel_test": (2_000, 2_000),
        "ratio_fit": (20_000, 12_000),
        "ratio_scored": (24_120, 12_000),
        "slices": (12_060, 6_000),
    }
    return {
        "schema_version": "1.0",
        "rows": {
            "q": 24_120,
            "p": 12_000,
            "used": {k: {"q": a, "p": b} for k, (a, b) in used.items()},
        },
        "schema": {
            "columns": [
                {"name": c["name"], "kind": c["kind"], "type_q": "double", "type_p": "double"}
                for c in cols
            ],
            "only_q": ["referrer"],
            "only_p": ["consent", "consent_date"],
            "changed_types": [{"name": "zip", "type_q": "int64", "type_p": "string"}],
            "new_levels": [
                {
                    "name": "workclass",
                    "levels": ["Never-worked", "Volunteer"],
                    "n_levels": 2,
                    "share_p": 0.0043,
                }
            ],
            "vanished_levels": [
                {
                    "name": "education",
                    "levels": [f"grade {k}" for k in range(12)],
                    "n_levels": 31,
                    "share_q": 0.0213,
                }
            ],
            "missingness": [
                {
                    "name": "workclass",
                    "q": 0.0561,
                    "p": 0.0012,
                    "pvalue": 1e-40,
                    "pvalue_adjusted": 3e-40,
                    "difference": {"estimate": -0.0549, "low": -0.058, "high": -0.0518},
                },
                {
                    "name": "age",
                    "q": 0.0,
                    "p": 0.0004,
                    "pvalue": 0.2,
                    "pvalue_adjusted": 0.3,
                    "difference": {"estimate": 0.0004, "low": -0.0001, "high": 0.0009},
                },
            ],
            "ignored": [
                {"name": "row_id", "reason": "named as --id"},
                {"name": "constant", "reason": "the same value in all rows"},
            ],
            "common_rows": {
                "n_q": 31,
                "n_p": 29,
                "share_q": 31 / 24_120,
                "share_p": 29 / 12_000,
                "p_subset_of_q": False,
                "q_subset_of_p": False,
                "identical": False,
                "sentence": "29 rows of p (0.24 %) also stand in q; they stayed in one fold.",
            },
        },
        "verdict": {
            "shifted": True,
            "pvalue": 0.0004997501249375312,
            "pvalue_reason": None,
            "effect": {"auc": 0.7423456789, "low": 0.7311},
            "tolerance": 0.55,
            "detectable": {"auc": 0.5123, "smd": 0.0311},
            "sentence": "p differs from q by more than you tolerate: a classifier tells them "
            "apart with AUC 0.742, at least 0.731.",
        },
        "kernel_test": {
            "pvalue": 0.0004997501249375312,
            "statistic": 0.0123,
            "method": "MMD aggregated over "
            "bandwidths of a Gaussian and a Laplace kernel, by permutation",
            "bandwidths": [0.4, 0.8, 1.6, 3.2, 6.4],
            "n_permutations": 2_000,
            "n_q": 2_000,
            "n_p": 2_000,
            "unit": "row",
        },
        "classifier_test": {
            "auc": {"estimate": 0.7423456789, "low": 0.7311, "high": 0.7534},
            "folds": 5,
            "fold_rule": "content",
            "model": "histogram gradient boosting",
            "n_q": 20_000,
            "n_p": 12_000,
        },
        "divergences": {
            "kl": {
                "estimate": 0.3412,
                "low": 0.298,
                "high": None,
                "high_reason": "no upper bound from samples",
                "assumption": None,
            },
            "reverse_kl": {
                "estimate": 0.3011,
                "low": 0.262,
                "high": None,
                "high_reason": "no upper bound from samples",
                "assumption": None,
            },
            "jensen_shannon": {
                "estimate": 0.0812,
                "low": 0.0733,
                "high": 0.0921,
                "high_reason": None,
                "assumption": "the ratio model holds",
            },
            "pearson_chi2": {
                "estimate": 0.912,
                "low": 0.61,
                "high": None,
                "high_reason": "no upper bound from samples",
                "assumption": None,
            },
            "total_variation": {
                "estimate": 0.321,
                "low": 0.298,
                "high": None,
                "high_reason": "no upper bound from samples",
                "assumption": None,
            },
            "squared_hellinger": {
                "estimate": 0.0842,
                "low": 0.0741,
                "high": None,
                "high_reason": "no upper bound from samples",
                "assumption": None,
            },
        },
        "columns": cols,
        "ratio": {
            "estimator": "gradient boosting, calibrated",
            "candidates": [
                {"name": "gradient boosting, calibrated", "loss": 0.6112, "standard_error": 0.0021},
                {"name": "logistic", "loss": 0.6378, "standard_error": 0.0019},
                {"name": "uLSIF", "loss": 0.6401, "standard_error": 0.0024},
            ],
            "baseline_loss": 0.6931,
            "shift": -0.0132,
            "sentence": "Calibrated gradient boosting had the lowest held-out loss and was "
            "fitted on five folds; no row was scored by a model that saw it.",
        },
        "overlap": {
            "ok": True,
            "share_of_p_out_of_reach": 0.00214,
            "low": 0.0014,
            "high": 0.0031,
            "log_ratio_limit": 3.91,
            "sentence": "q covers p: 0.21 % of p lies where q has next to no rows.",
            "rows": [
                {"row": 17 * k + 4, "id": f"C-{900 + k}", "log_ratio": 4.9 - k / 9}
                for k in range(6)
            ],
        },
        "weights": {
            "effective_sample_size": 12_613.4,
            "share_effective": 0.5229,
            "khat": 0.412,
            "khat_limit": 0.7,
            "top_one_percent_share": 0.0713,
            "largest": 14.2,
            "ok": True,
            "sentence": "The weights can be used: 24,120 rows of q are worth 12,613 rows of p.",
        },
        "balance": {
            "max_abs_smd_before": abs(features[0]["before"]) if features else None,
            "max_abs_smd_after": max((abs(f["after"]) for f in features), default=None),
            "features": features,
        },
        "slices": [
            {
                "rule": "age > 52 and education = Doctorate",
                "conditions": [],
                "share_q": 0.0121,
                "share_p": 0.0683,
                "ratio": 5.64,
                "low": 4.6,
                "high": 6.9,
                "pvalue_adjusted": 1e-30,
                "n_q": 146,
                "n_p": 410,
            },
            {
                "rule": "hours-per-week <= 20 and marital-status = Widowed",
                "conditions": [],
                "share_q": 0.021,
                "share_p": 0.0462,
                "ratio": 2.2,
                "low": 1.8,
                "high": 2.69,
                "pvalue_adjusted": 1e-12,
                "n_q": 253,
                "n_p": 277,
            },
            {
                "rule": "age <= 24",
                "conditions": [],
                "share_q": 0.1411,
                "share_p": 0.0303,
                "ratio": 0.2147,
                "low": 0.184,
                "high": 0.249,
                "pvalue_adjusted": 1e-60,
                "n_q": 1_701,
                "n_p": 182,
            },
            {
                "rule": "native-country = Mexico and age <= 31",
                "conditions": [],
                "share_q": 0.0102,
                "share_p": 0.0049,
                "ratio": 0.48,
                "low": 0.31,
                "high": 0.74,
                "pvalue_adjusted": 0.0121,
                "n_q": 123,
                "n_p": 29,
            },
        ],
        "outliers": [
            {
                "row": 17 * k + 4,
                "id": f"C-{900 + k}",
                "log_ratio": 4.9 - k / 9,
                "columns": [
                    {"name": "age", "value": 87 + k, "contribution": 2.31},
                    {"name": "education", "value": "Doctorate", "contribution": 1.2},
                    {"name": "hours-per-week", "value": None, "contribution": -0.21},
                ],
            }
            for k in range(8)
        ],
        "label": {"name": "income", "kind": "categorical"},
        "label_shift": {
            "test": "chi-squared",
            "statistic": 812.0,
            "pvalue": 1e-120,
            "effect": {
                "measure": "total_variation",
                "estimate": 0.142,
                "low": 0.131,
                "high": 0.153,
            },
            "histogram": {
                "kind": "levels",
                "edges": None,
                "labels": ["<=50K", ">50K"],
                "q": [0.761, 0.239],
                "p": [0.619, 0.381],
                "q_weighted": [0.64, 0.36],
            },
            "sentence": "The label moved: >50K has 23.9 % of q and 38.1 % of p.",
        },
        "concept_shift": {
            "pvalue": 0.31,
            "statistic": 0.0012,
            "effect": {
                "measure": "log loss gained",
                "estimate": 0.0008,
                "low": -0.001,
                "high": 0.0026,
            },
            "detected": False,
            "sentence": "No change of the relation between columns and label was found.",
        },
        "performance": {
            "accuracy": {
                "q": _estimate(0.8712, 0.004),
                "p": _estimate(0.8231, 0.012),
                "p_observed": _estimate(0.8254, 0.007),
            },
            "log_loss": {
                "q": _estimate(0.2981, 0.006),
                "p": _estimate(0.3817, 0.02),
                "p_observed": None,
            },
        },
        "performance_caveat": "valid only if P(Y|X) is unchanged",
        "warnings": ["column 'zip': int64 in q, string in p; compared as categorical."],
    }


def run() -> dict[str, Any]:
    """A run record."""
    return {
        "dpdq": "0.1.0",
        "python": "3.11.7",
        "packages": {"numpy": "2.3.1", "scikit-learn": "1.9.0"},
        "q": {"name": "adult_2024.parquet"},
        "p": {"name": "adult_2025.parquet"},
        "options": {"tolerance": 0.55, "random_state": 0, "label": "income"},
        "seconds": {"total": 11.31, "columns": 0.8, "ratio": 6.1, "kernel_test": 2.2},
        "started": "2025-11-20T20:51:00+00:00",
    }


def quick(n_columns: int = 14) -> dict[str, Any]:
    """A comparison of columns only."""
    c = full(n_columns)
    for key in (
        "kernel_test",
        "classifier_test",
        "ratio",
        "overlap",
        "weights",
        "balance",
        "label",
        "label_shift",
        "concept_shift",
        "performance",
    ):
        c[key] = None
    c["verdict"] = {
        "shifted": None,
        "pvalue": None,
        "pvalue_reason": "not run in quick mode",
        "effect": {"auc": None, "low": None},
        "tolerance": 0.5,
        "detectable": {"auc": None, "smd": 0.0311},
        "sentence": "3 of 14 columns shifted; whole rows were not tested in quick mode.",
    }
    c["divergences"], c["slices"], c["outliers"], c["warnings"] = {}, [], [], []
    c["rows"]["used"] = {"columns": {"q": 24_120, "p": 12_000}}
    for column in c["columns"]:
        column["histogram"]["q_weighted"] = None
    return c


def refused() -> dict[str, Any]:
    """A comparison whose overlap fails."""
    c = full()
    c["verdict"].update(
        {
            "effect": {"auc": 0.9912, "low": 0.988},
            "sentence": "p differs from q by more than you tolerate: a classifier tells them apart "
            "with AUC 0.991, at least 0.988.",
        }
    )
    c["classifier_test"]["auc"] = {"estimate": 0.9912, "low": 0.988, "high": 0.9935}
    c["overlap"].update(
        {
            "ok": False,
            "share_of_p_out_of_reach": 0.3121,
            "low": 0.298,
            "high": 0.326,
            "sentence": "Overlap fails: 31.2 % of p lies where q has no data; no weighting can "
            "repair this.",
        }
    )
    c["weights"].update(
        {
            "effective_sample_size": 81.2,
            "share_effective": 0.0034,
            "khat": 1.31,
            "ok": False,
            "top_one_percent_share": 0.913,
            "largest": 2_841.0,
            "sentence": "The weights cannot be relied on: 24,120 rows are worth 81.",
        }
    )
    c["balance"]["max_abs_smd_after"] = 0.71
    c["slices"].append(
        {
            "rule": "relationship = Wife",
            "conditions": [],
            "share_q": 0.0,
            "share_p": 0.127,
            "ratio": None,
            "low": 29.8,
            "high": None,
            "pvalue_adjusted": 1e-60,
            "n_q": 0,
            "n_p": 128,
        }
    )
    c["concept_shift"].update(
        {
            "detected": True,
            "pvalue": 0.001,
            "sentence": "The relation between columns and label changed.",
        }
    )
    return c


def subset() -> dict[str, Any]:
    """A comparison where every row of p stands in q."""
    c = full()
    c["verdict"].update(
        {
            "shifted": None,
            "pvalue": None,
            "pvalue_reason": "every row of p stands in q, so the two are not independent samples",
            "sentence": "p is a part of q; tests of independent samples are withheld.",
        }
    )
    c["kernel_test"] = None
    c["schema"]["common_rows"].update(
        {
            "n_q": 12_000,
            "n_p": 12_000,
            "share_q": 0.4975,
            "share_p": 1.0,
            "p_subset_of_q": True,
            "sentence": "Every row of p also stands in q.",
        }
    )
    for column in c["columns"]:
        column.update({"pvalue": None, "pvalue_adjusted": None, "shifted": None})
    return c


def hostile() -> dict[str, Any]:
    """A full comparison whose every text tries to break the page."""
    c = full(len(HOSTILE))

    def poison(value: Any, k: int) -> Any:
        if isinstance(value, dict):
            return {key: poison(item, k + i) for i, (key, item) in enumerate(value.items())}
        if isinstance(value, list):
            return [poison(item, k + i) for i, item in enumerate(value)]
        return HOSTILE[k % len(HOSTILE)] if isinstance(value, str) else value

    c = poison(c, 0)
    for k, column in enumerate(c["columns"]):
        column["name"] = HOSTILE[k % len(HOSTILE)]
    c["performance"] = {HOSTILE[0]: c["performance"]["accuracy"], HOSTILE[1]: None}
    c["rows"]["used"][HOSTILE[0]] = {"q": 1, "p": 2}
    c["divergences"][HOSTILE[0]] = copy.deepcopy(c["divergences"]["kl"])
    c["columns"][0]["summary"]["q"][HOSTILE[0]] = HOSTILE[1]
    return c
