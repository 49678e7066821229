"""The parts of a comparison that learn: ratio, tests, divergences, slices, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq._random import as_generator, child_seed
from dpdq._threads import one_thread_each
from dpdq.comparison.consequences import balance_part, overlap_part
from dpdq.comparison.estimation import (
    N_FOLDS,
    Estimation,
    cut_folds,
    estimate_ratio,
    score_all,
)
from dpdq.comparison.labels_part import labels_parts
from dpdq.comparison.verdict import verdict
from dpdq.data import bottom_k_rows, units_for_tests
from dpdq.weights import Weights

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.comparison.options import Options
    from dpdq.comparison.progress import Steps
    from dpdq.comparison.sides import Side
    from dpdq.data import Column

__all__ = ["FullParts"]

KERNEL_ROWS = 5_000
EFFECT_ROWS = 1_000_000  # of a side; the intervals are then a thousandth wide
OUTLIERS = 10


class FullParts:
    """Everything that a quick comparison leaves out.

    Attributes
    ----------
    estimation
        The recipe and the cross-fitted ratio.
    used
        Part -> rows used on each side.
    warnings
        Sentences for the page.
    """

    def __init__(
        self,
        q: Side,
        p: Side,
        options: Options,
        steps: Steps,
        seed: int,
        columns: list[Column],
        sample_q: pa.Table,
        sample_p: pa.Table,
        shared: dict[str, Any],
    ) -> None:
        self.q, self.p, self.options, self.steps = q, p, options, steps
        self.columns, self.sample_q, self.sample_p = columns, sample_q, sample_p
        self.shared = shared
        children = as_generator(seed)
        self.seeds = {
            name: child_seed(children)
            for name in ("folds", "ratio", "kernel", "slices", "outliers", "labels")
        }
        self.used: dict[str, dict[str, int]] = {}
        self.warnings: list[str] = []

    def estimate(self) -> None:
        """Fit the ratio on the sample and score every row."""
        q, p = self.q, self.p
        with self.steps.step("folds"):
            rule = cut_folds(q, p, self.seeds["folds"])
            self.units = units_for_tests(
                group_q=q.group, group_p=p.group, time_q=q.time, time_p=p.time
            )
        with self.steps.step("fit the ratio"):
            self.estimation: Estimation = estimate_ratio(
                q,
                p,
                self.sample_q,
                self.sample_p,
                self.columns,
                infinite=self.options.infinite,
                rule=rule,
                seed=self.seeds["ratio"],
            )
        q.forget_content()
        p.forget_content()
        self.used["ratio_fit"] = {"q": len(q.rows), "p": len(p.rows)}
        with self.steps.step("score all rows", q.n_rows + p.n_rows) as advance:
            names = [column.name for column in self.columns]
            score_all(self.estimation, q, p, names, advance, self.options.engine)
        self.used["ratio_scored"] = {"q": q.n_rows, "p": p.n_rows}
        weights = Weights(q.log_ratio)
        self._weights_part = weights.to_dict()
        q.log_ratio = weights.log  # of mean one exactly; one array serves as both

    @property
    def weights(self) -> np.ndarray:
        """Mean-one weights of the rows of q."""
        return np.exp(self.log_weights)

    @property
    def log_weights(self) -> np.ndarray:
        """Logarithms of the weights."""
        return self.q.log_ratio

    def _units_of(self, rows_q: np.ndarray | None = None, rows_p: np.ndarray | None = None) -> Any:
        """Units of some rows as two keyword arguments."""
        if self.units is None:
            return {"units_q": None, "units_p": None}
        q = self.units[0] if rows_q is None else self.units[0][rows_q]
        p = self.units[1] if rows_p is None else self.units[1][rows_p]
        return {"units_q": q, "units_p": p}

    def parts(self) -> dict[str, Any]:
        """Return the parts of ``comparison.json`` that learn."""
        with one_thread_each():
            return self._parts()

    def _parts(self) -> dict[str, Any]:
        steps = self.steps
        found: dict[str, Any] = {}
        with steps.step("kernel test"):
            found["kernel_test"], pvalue, reason = self._kernel_test()
        with steps.step("effect and divergences"):
            found["classifier_test"] = self._classifier_test()
            found["divergences"] = self._divergences()
        found["ratio"] = self._ratio()
        with steps.step("weights and balance"):
            found["overlap"] = overlap_part(self.q.log_ratio, self.p.log_ratio, self._ids())
            found["weights"] = self._weights_part
            if not found["overlap"]["ok"]:
                found["weights"] |= _useless(found["weights"])
            found["balance"] = self._balance()
        with steps.step("slices"):
            found["slices"] = self._slices()
        with steps.step("strangest rows"):
            found["outliers"] = self._outliers()
        with steps.step("labels and performance"):
            labels, used, warnings = labels_parts(
                self.q, self.p, self.options, self.estimation, self.units, self.seeds["labels"]
            )
        found |= labels
        self.used |= used
        self.warnings += warnings
        found["verdict"] = verdict(
            pvalue=pvalue,
            pvalue_reason=reason,
            auc=found["classifier_test"]["auc"],
            tolerance=self.options.tolerance,
            detectable=self._detectable(),
            concept=found["concept_shift"],
            overlap_ok=found["overlap"]["ok"],
            common_rows=self.shared,
        )
        return found

    def _withheld(self) -> str | None:
        """Why the tests of independent samples do not apply, or None."""
        shared = self.shared
        if shared["identical"]:
            return None
        if shared["p_subset_of_q"]:
            return (
                "Every row of p stands in q, so the two are not independent samples and no test "
                "of equality applies. Compare p with the rest of q instead."
            )
        if shared["q_subset_of_p"]:
            return (
                "Every row of q stands in p, so the two are not independent samples and no test "
                "of equality applies. Compare q with the rest of p instead."
            )
        return None

    def _kernel_test(self) -> tuple[dict[str, Any] | None, float | None, str | None]:
        from dpdq.distance import mmd_test

        withheld = self._withheld()
        if withheld is not None:
            return None, None, withheld
        rows_q, rows_p = _first(self.q, KERNEL_ROWS), _first(self.p, KERNEL_ROWS)
        dense_q = self.estimation.dense_q[rows_q]
        dense_p = self.estimation.dense_p[rows_p]
        units = self._units_of(self.q.rows[rows_q], self.p.rows[rows_p])
        test = mmd_test(dense_q, dense_p, method="auto", **units, random_state=self.seeds["kernel"])
        self.used["kernel_test"] = {"q": test.n_q, "p": test.n_p}
        details = dict(test.details)
        part = {
            "pvalue": test.pvalue,
            "statistic": test.statistic,
            "method": test.method,
            "bandwidths": details.get("bandwidths"),
            "n_permutations": details.get("n_permutations"),
            "n_q": test.n_q,
            "n_p": test.n_p,
            "unit": "row" if self.units is None else self._unit_name(),
        }
        return part, test.pvalue, None

    def _unit_name(self) -> str:
        return "time block" if self.q.time is not None else "group"

    def _classifier_test(self) -> dict[str, Any]:
        from dpdq.distance import auc_interval

        q, p, fitted = self.q, self.p, self.estimation.fitted
        if self.estimation.constant:
            scores = fitted.held_out_q_, fitted.held_out_p_
            folds = q.folds[q.rows], p.folds[p.rows]
            units = self._units_of(q.rows, p.rows)
        else:
            rows_q, rows_p = self._effect_rows()
            scores = q.log_ratio[rows_q], p.log_ratio[rows_p]
            folds = q.folds[rows_q], p.folds[rows_p]
            units = self._units_of(rows_q, rows_p)
        self.auc = auc_interval(scores[0], scores[1], folds_q=folds[0], folds_p=folds[1], **units)
        auc = self.auc.to_dict()
        return {
            "auc": {name: auc[name] for name in ("estimate", "low", "high")},
            "folds": N_FOLDS,
            "fold_rule": self.estimation.fold_rule,
            "model": fitted.best_candidate_,
            "n_q": len(scores[0]),
            "n_p": len(scores[1]),
        }

    def _effect_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that measure the effect and the divergences: all, or a million a side at random."""
        seed = self.seeds["kernel"]
        rows_q, rows_p = (
            bottom_k_rows(side.n_rows, EFFECT_ROWS, seed) for side in (self.q, self.p)
        )
        self.used["effect"] = {"q": len(rows_q), "p": len(rows_p)}
        return rows_q, rows_p

    def _detectable(self) -> dict[str, float | None]:
        from dpdq.distance import detectable_auc, detectable_smd

        kernel = self.used.get("kernel_test", {"q": self.q.n_rows, "p": self.p.n_rows})
        n_q, n_p = kernel["q"], kernel["p"]
        if self.units is not None:
            n_q = min(n_q, len(np.unique(self.units[0])))
            n_p = min(n_p, len(np.unique(self.units[1])))
        # The AUC is cross-fitted: near 1/2 its variance is twice that of a fixed classifier.
        auc = detectable_auc(n_q, n_p, se_inflation=2**0.5)
        return {"auc": float(auc), "smd": float(detectable_smd(n_q, n_p))}

    def _divergences(self) -> dict[str, Any]:
        from dpdq.distance import estimate_divergences, logistic_model_intervals
        from dpdq.distance.divergence_estimates import NO_UPPER_END, REPORTED

        q, p = self.q, self.p
        if self.estimation.constant:
            return {
                name: {
                    "estimate": 0.0,
                    "low": 0.0,
                    "high": None,
                    "high_reason": "no estimator beat r = 1 on held-out rows; " + NO_UPPER_END,
                    "assumption": None,
                }
                for name in REPORTED
            }
        model = None
        if self.estimation.fitted.estimator_ == "logistic":  # the linear model won: name it
            model = logistic_model_intervals(
                self.estimation.dense_q, self.estimation.dense_p, **self._units_of(q.rows, p.rows)
            )
        rows_q, rows_p = self._effect_rows()
        found = estimate_divergences(
            q.log_ratio[rows_q],
            p.log_ratio[rows_p],
            **self._units_of(rows_q, rows_p),
            model=model,
        )
        return {
            name: {
                "estimate": estimate.estimate,
                "low": estimate.low,
                "high": estimate.high,
                "high_reason": estimate.reason or None if estimate.high is None else None,
                "assumption": estimate.assumption or None,
            }
            for name, estimate in found.items()
        }

    def _ratio(self) -> dict[str, Any]:
        fitted = self.estimation.fitted
        return {
            "estimator": fitted.estimator_,
            "candidates": [{"name": name, **numbers} for name, numbers in fitted.losses_.items()],
            "baseline_loss": fitted.baseline_loss_,
            "shift": fitted.shift_ + self.estimation.shift,
            "sentence": fitted.reason_,
        }

    def _ids(self) -> dict[int, Any] | None:
        """Keys of the rows of p with the largest log ratios."""
        name = self.options.id
        if not self.p.has(name):
            return None
        rows = np.sort(np.argsort(-self.p.log_ratio, kind="stable")[:OUTLIERS])
        keys = self.p.source.take(rows, [str(name)]).column(0).to_pylist()
        return dict(zip(rows.tolist(), map(_key, keys), strict=True))

    def _balance(self) -> dict[str, Any]:
        features, q = self.estimation.features, self.q
        self.used["balance"] = {"q": len(q.rows), "p": len(self.p.rows)}
        columns = [self.columns[j].name for j in features.dense_columns]
        return balance_part(
            self.estimation.dense_q,
            self.estimation.dense_p,
            q.log_ratio[q.rows],
            list(features.dense_names),
            columns,
        )

    def _slices(self) -> list[dict[str, Any]]:
        from dpdq.shift import find_slices

        q, p = self.q, self.p
        if self.shared["identical"] or self._withheld() is not None:
            return []
        self.used["slices"] = {"q": len(q.rows), "p": len(p.rows)}
        # Equal rows fall into the same half: a bit of the content hash decides.
        halves = {
            f"halves_{side.name}": (side.content >> np.uint64(17)) % np.uint64(2) == 1
            for side in (q, p)
        }
        found = find_slices(
            self.sample_q,
            self.sample_p,
            [(column.name, column.kind) for column in self.columns],
            **self._units_of(q.rows, p.rows),
            **(halves if self.units is None else {}),
            random_state=self.seeds["slices"],
        )
        return [item.to_dict() for item in found]

    def _outliers(self) -> list[dict[str, Any]]:
        from dpdq.shift import strangest_rows

        if self.estimation.constant:
            return []
        p = self.p
        rows = np.argsort(-p.log_ratio, kind="stable")[:OUTLIERS]
        names = [column.name for column in self.columns]
        have = self.sample_q.select(names)
        by_number = np.sort(rows)
        want = p.source.take(by_number, names)
        ids = self._ids() or {}
        seeds = as_generator(self.seeds["outliers"])
        found = []
        for row in rows.tolist():  # one by one: each row is explained by the model of its fold
            fold = int(p.folds[row])

            def score(table: pa.Table, fold: int = fold) -> np.ndarray:
                return self.estimation.score(table, np.full(table.num_rows, fold))

            strange = strangest_rows(
                p.log_ratio[row : row + 1],
                score,
                want.slice(int(np.searchsorted(by_number, row)), 1),
                have,
                row_numbers=np.array([row]),
                random_state=child_seed(seeds),
            )
            found += [item.to_dict() | {"id": ids.get(row)} for item in strange]
        return found


def _useless(weights: dict[str, Any]) -> dict[str, Any]:
    """Say of weights, however well they look, that they cannot stand for all of p."""
    return {
        "ok": False,
        "sentence": (
            "Overlap fails, so no weights can stand for all of p. The rows within reach count as "
            f"{weights['effective_sample_size']:,.0f} of {weights['n_kept']:,}."
        ),
    }


def _first(side: Side, most: int) -> np.ndarray:
    """Positions in the sample of at most ``most`` rows, spread evenly over it."""
    n = len(side.rows)
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, str)) or value is None else str(value)
