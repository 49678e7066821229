"""What is dP/dQ? Estimators of log r = log dP/dQ from a sample of q and a sample of p.

Three routes lead to the same number. A probabilistic classifier that tells p from q carries it:
with class sizes taken out, its logit is log r. Least squares fits r itself, since
E_q[(r̂ - r)²]/2 = E_q[r̂²]/2 - E_p[r̂] + constant needs no density. Every smooth f-divergence
gives one more loss of this kind, E_q[f*(f'(r̂))] - E_p[f'(r̂)]; the two above are Jensen-Shannon
and Pearson.

What the samples do not fix: log r where q has no rows (any value fits), and the level of r̂,
which is therefore set by E_q[r] = 1 on rows that the model has not seen; the size of that shift
tells how far the model was off.

Which one:

- `LogisticRatio` where log r is near linear in the features; fast, smooth, with a covariance.
- `GradientBoostingRatio` for mixed columns, steps and interactions; the usual winner on tables.
- `ULSIF` for few continuous columns and smooth bumps; tuned in closed form.
- `RULSIF` in its place where some rows of p lie at the rim of q, since the relative ratio is
  bounded; `KLIEP` where no structure at all should be seen unless held-out rows show it.
- `KernelMeanMatching` where weights for means over q are all that is wanted.
- `ClassifierRatio` around any probabilistic scikit-learn classifier of one's own.
- `TelescopingRatio` where q and p are further apart than about ten nats.
- `VariationalRatio` for few columns through the divergence of one's choice;
  `VariationalNetworkRatio` for many rows and smooth interactions among many columns, in torch.
- `NearestNeighborRatio` where no form may be assumed, in few columns.
- `LabelShiftRatio` where only the labels' frequencies changed and p has no labels.
- `select_ratio` tries several and keeps the one with the smallest held-out loss, or the constant
  ratio where none beats it; `CrossFittedRatio` is the same with folds given by the caller.
"""

from dpdq._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "RatioEstimator": "_base",
        "LogisticRatio": "logistic",
        "GradientBoostingRatio": "boosting",
        "ULSIF": "least_squares",
        "RULSIF": "relative",
        "KLIEP": "kliep",
        "KernelMeanMatching": "mean_matching",
        "ClassifierRatio": "classifier",
        "TelescopingRatio": "telescoping",
        "VariationalRatio": "variational",
        "VariationalNetworkRatio": "variational_network",
        "variational_loss": "variational",
        "NearestNeighborRatio": "nearest_neighbors",
        "nearest_neighbor_divergence": "nearest_neighbors",
        "LabelShiftRatio": "label_shift",
        "select_ratio": "selection",
        "CrossFittedRatio": "cross_fitting",
        "RatioDiagnostics": "diagnostics",
        "check_overlap": "diagnostics",
        "Overlap": "diagnostics",
        "iw_score": "model_selection",
        "ImportanceWeightedCV": "weighted_search",
        "ImportanceWeightedScore": "model_selection",
    },
)
