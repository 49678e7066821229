"""The page docs/estimators.md, written out of what bench/ratio_accuracy.py has measured."""

import numpy as np

SHORT = {
    "LogisticRatio": "logistic",
    "ClassifierRatio": "squares",
    "GradientBoostingRatio": "boosting",
    "TelescopingRatio": "telescoping",
    "VariationalRatio": "variational",
    "ULSIF": "uLSIF",
    "RULSIF": "RuLSIF",
    "KLIEP": "KLIEP",
    "KernelMeanMatching": "KMM",
    "NearestNeighborRatio": "neighbours",
    "select_ratio": "selected",
}


def mean(rows, name):
    values = np.array([getattr(row, name) for row in rows], dtype=float)
    return float(values.mean())


PAGE = """# Which estimator when

Every estimator of `dpdq.ratio` has the same two methods, `fit(q, p)` and `log_ratio(x)`, reads
arrays, tables, tensors and sparse matrices, and judges itself on held-out rows with `diagnose`.
They differ in what they take log dP/dQ to look like. This page is written by
`python bench/ratio_accuracy.py --write-docs`, and its numbers are those of
`bench/output/ratio_accuracy.txt`: {rows:,} rows a side, fresh rows for the errors, the mean of
{draws} draws.

## In short

| your data | take | because |
| --- | --- | --- |
{advice}

When in doubt, `select_ratio(q, p)`: it cross-fits several and keeps the one with the smallest loss
on rows that it has not seen. Then ask `diagnose`: no estimator makes weights where q has no data.

## How far off is log dP/dQ on rows of p

Root mean square error in nats over rows of p, where weights matter; the least in **bold**.
*squares* is `ClassifierRatio` around a logistic regression on all squares and products of columns,
*selected* is `select_ratio` with its default candidates, the other columns are the estimators of
these names with their defaults.

{rmse}

## How far off is a weighted mean

How far the weighted mean over q lies from the mean over p, for the sum of the columns and the sum
of their squares, the larger one, in standard deviations of p. *none* is the error without weights
and *truth* that of the true ratio, which no estimate beats but by luck: where it is large, {rows:,}
rows of q do not hold the answer.

{mean}

## Seconds, and who refuses

Processor seconds of one fit, in the mean over all cases, and in how many of the {cases} cases the
held-out diagnosis said that the weights cannot be trusted (in any draw). The true ratio is refused
in both draws of {true_refused} cases: there q does not cover p, whatever the estimator. *Missed*
counts those of them in which the estimate is trusted in both draws: an estimate that does not see
the difference does not see the gap either.

{verdicts}

{adult}
## What follows from it

{lessons}
"""


def markdown(head, lines):
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *lines])


def number_table(tables, what, extra):
    """One line a case, one column an estimator, the least of the estimators in bold."""
    names = [name for name in SHORT if any(name in table for table in tables.values())]
    lines = []
    for case, table in tables.items():
        values = {name: mean(table[name], what) for name in [*names, *extra]}
        if not np.isfinite([values[name] for name in names]).any():
            continue
        least = np.nanmin([values[name] for name in names])
        cells = []
        for name, value in values.items():
            text = "-" if np.isnan(value) else f"{value:.2f}"
            best = name in names and value <= least + 0.005
            cells.append(f"**{text}**" if best else text)
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    heads = [*(SHORT[name] for name in names), *({"no weights": "none"}.get(e, e) for e in extra)]
    return markdown(["case", *heads], lines)


def verdict_table(tables):
    deserved = [case for case, table in tables.items() if all(r.refuses for r in table["truth"])]
    lines = []
    for name, short in SHORT.items():
        rows = {case: table[name] for case, table in tables.items() if name in table}
        if not rows:
            continue
        refused = sum(any(row.refuses for row in each) for each in rows.values())
        missed = sum(not any(row.refuses for row in rows[case]) for case in deserved)
        seconds = np.mean([mean(each, "seconds") for each in rows.values()])
        lines.append(f"| {short} | {seconds:.2f} | {refused} | {missed} |")
    head = ["estimator", "seconds a fit", "refused", "missed"]
    return markdown(head, lines), len(deserved)


def write_page(path, tables, adult, *, rows, draws):
    """Write the page; ``tables`` is case -> estimator -> rows with the fields of `Row`."""
    verdicts, true_refused = verdict_table(tables)
    losses = ""
    if adult:
        lines = [f"| {SHORT[name]} | {loss:.3f} |" for name, loss in adult.items()]
        losses = (
            "## A table of mixed columns\n\nWomen to men of the Adult data, 13 columns of numbers "
            "and levels through the feature recipe: held-out loss, 0.693 for r = 1.\n\n"
            + markdown(["estimator", "held-out loss"], lines)
            + "\n"
        )
    page = PAGE.format(
        rows=rows,
        draws=draws,
        advice="\n".join(f"| {' | '.join(line)} |" for line in advice(tables)),
        rmse=number_table(tables, "rmse_p", []),
        mean=number_table(tables, "mean_error", ["truth", "no weights"]),
        verdicts=verdicts,
        true_refused=true_refused,
        cases=len(tables),
        adult=losses,
        lessons="\n".join(f"- {line}" for line in LESSONS),
    )
    path.write_text(page)


def advice(tables):
    """Data, estimator, reason; every number is read off the tables."""

    def p(case, name):
        return f"{mean(tables[case][name], 'rmse_p'):.2f}"

    far = "Gaussians, 8 dims, KL 30"
    others = min(
        mean(rows, "rmse_p")
        for name, rows in tables[far].items()
        if name not in ("TelescopingRatio", "truth", "no weights", "select_ratio")
    )
    smooth, cells = "Scales 1 and 0.6, 8 dims, KL 1.5", "Mixture of 4 in 2 dims, other shares"
    return [
        (
            "a table of mixed columns, steps, interactions",
            "`GradientBoostingRatio`",
            "the least loss on Adult below; takes missing cells as they are; rough where the truth "
            f"is smooth ({p('Gaussians, 8 dims, KL 1', 'GradientBoostingRatio')} nats on shifted "
            f"Gaussians where the logistic has {p('Gaussians, 8 dims, KL 1', 'LogisticRatio')})",
        ),
        (
            "shifted means, many columns, counts of words",
            "`LogisticRatio`",
            "near the truth for shifted Gaussians in 2 to 64 columns, in hundredths of a second, "
            "sparse matrices included; blind to a change of spread "
            f"({p(smooth, 'LogisticRatio')} nats on unequal scales)",
        ),
        (
            "numeric columns, a smooth law of unknown shape",
            "`VariationalRatio`",
            f"{p(smooth, 'VariationalRatio')} nats on unequal scales in 8 columns, and never far "
            "from the best elsewhere up to a KL of 5",
        ),
        (
            "one bump or another in few columns",
            "`NearestNeighborRatio`, `KLIEP`",
            f"{p(cells, 'NearestNeighborRatio')} and {p(cells, 'KLIEP')} nats on the mixture; all "
            "methods of distances fade above about ten columns",
        ),
        (
            "q and p far apart, and the log ratio itself is wanted",
            "`TelescopingRatio`",
            f"at a KL of 30 it is off by {p(far, 'TelescopingRatio')} nats in 8 columns where the "
            f"next best is off by {others:.0f}; the weights are of no use there all the same",
        ),
        (
            "a bounded answer at the rim of q",
            "`RULSIF`, `KernelMeanMatching`",
            "they fit r and not log r, so that small ratios are poor and large ones cut: for means "
            "and not for log ratios",
        ),
        (
            "a classifier of your own",
            "`ClassifierRatio`",
            "as good as the classifier: with squares it sees spreads, with thousands of products "
            "it overfits",
        ),
    ]


LESSONS = [
    "A held-out loss near 0.693 says that the estimator sees nothing, not that there is nothing: "
    "on unequal scales the logistic stands there while five others are far below. Compare two "
    "kinds before concluding that q = p.",
    "For shifted Gaussians overlap ends near a KL of 1: beyond it more than a twentieth of p lies "
    "where 2,000 rows of q have none, and from 5 on the weighted mean is off by large parts of a "
    "standard deviation even with the true ratio. No estimator mends that; rows do.",
    "Errors of log r on rows of q are larger than on rows of p wherever r is small (see the output "
    "file); weighted means do not feel them, reverse divergences do.",
    "`select_ratio` holds log ratios to log(10 n), since n rows cannot tell a larger one from "
    "infinity: 10 nats here, so that from a KL of 5 on it falls behind its own winner in log r. "
    "The weighted means differ little.",
    "The diagnosis is as good as the ratio. It misses a lack of overlap where the estimator blurs "
    "the difference, as distances do in 64 columns: `select_ratio` first, then `diagnose`.",
]
