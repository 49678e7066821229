"""What changed between q and p, for whom, and at what cost?

Let P(X, Y) = P(X) P(Y|X), and likewise Q. A change of data is one of these, and each asks for
something else:

==================  =======================  ======================================================
what changed        how it shows             what to do
==================  =======================  ======================================================
P(X)                slices, strange rows     weight q by r(x) = dP/dQ, if q reaches all of p
P(Y)                label shift              weight q by P(y)/Q(y), if P(X|Y) is kept
P(Y|X)              concept shift            new labels: no weight repairs it
==================  =======================  ======================================================

`find_slices` reads the ratio off as rules (for a slice A, P(A)/Q(A) = E_q[r | A]) and
`strangest_rows` names the rows where it is largest. `shifted_performance` carries a metric from q
to p by E_p[loss] = E_q[r loss], which is valid only if P(Y|X) is unchanged; `concept_shift` tests
just that where both sides have labels, and `label_shift` compares the labels' marginals. None of
them knows a cause: which of the three changed first is not in the data.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(
    __name__,
    {
        "find_slices": "slices",
        "strangest_rows": "outliers",
        "performance": "metrics",
        "shifted_performance": "metrics",
        "label_shift": "labels",
        "concept_shift": "concepts",
        "Slice": "slices",
        "Condition": "_literals",
        "StrangeRow": "outliers",
        "ColumnPart": "outliers",
        "MetricShift": "metrics",
        "LabelShift": "labels",
        "LabelHistogram": "labels",
        "ConceptShift": "concepts",
        "Effect": "_common",
    },
)
