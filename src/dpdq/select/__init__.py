"""Which rows of q are worth keeping for p?

q is the pool one has, p what one wants the kept rows to be like, or good for. A selector is two
objects freely combined: a **utility** scores every row of the pool (`fit`, then `utility(pool)`,
larger is better), a **mechanism** keeps rows by their utility (`top_k`, `gumbel_top_k`,
`threshold`, `quota`) and says of every row why.

With u = log dP/dQ as utility, `gumbel_top_k` at temperature 1 draws a sample of p out of q; `top_k`
takes the rows that are most typical of p against q, which is no sample of p. What no utility
fixes: how much of it is the source or the length of a row. `conditional_utility` says, and scores
within them; `Selection.random_control` is the baseline that every choice is held against.
"""

from dpdq._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Utility": "_base",
        "Price": "_base",
        "Selection": "chosen",
        "top_k": "mechanisms",
        "gumbel_top_k": "mechanisms",
        "quota": "mechanisms",
        "threshold": "mechanisms",
        "Values": "values",
        "KNNShapley": "knn_shapley",
        "DataOOB": "out_of_bag",
        "DataShapley": "monte_carlo_shapley",
        "LeaveOneOut": "leave_one_out",
        "removal_control": "removal",
        "removal_curve": "removal",
        "RemovalControl": "removal",
        "RemovalCurve": "removal",
        "NGramRatio": "ngrams",
        "DSIR": "ngrams",
        "CompressionAlignment": "compression",
        "TextClassifierRatio": "text_classifier",
        "EmbeddingRatio": "text_classifier",
        "LikelihoodRatio": "likelihood",
        "likelihood_ratio": "likelihood",
        "TransportGradient": "transport_gradients",
        "MetadataBalance": "metadata",
        "select_rows": "pool_jobs",
        "PoolSelection": "pool_jobs",
        "write_selected": "pool_files",
        "conditional_utility": "nuisance",
        "ConditionalUtility": "nuisance",
        "EL2N": "training_scores",
        "GraNd": "training_scores",
        "ForgettingCounts": "training_scores",
        "VarianceOfGradients": "training_scores",
        "SelfInfluence": "training_scores",
        "CalibratedPruner": "pruning",
        "pruning_bias": "pruning",
        "FacilityLocation": "coverage",
        "KCenter": "coverage",
        "near_duplicates": "duplicates",
        "exact_duplicates": "duplicates",
        "band_curve": "minhash",
        "Duplicates": "duplicates",
        "shared_passages": "duplicates_exact",
        "benchmark_overlap": "overlap",
        "BenchmarkOverlap": "overlap",
        "membership_test": "membership_tests",
        "MembershipResult": "membership_tests",
        "loss_score": "membership",
        "zlib_score": "membership",
        "reference_score": "membership",
        "min_k_score": "membership",
        "min_k_plus_plus_score": "membership",
        "dc_pdd_score": "membership",
        "blind_guard": "guard",
        "BlindGuard": "guard",
        "option_permutation_test": "option_permutation",
        "option_scores": "option_permutation",
        "exchangeable_options": "option_permutation",
        "OptionPermutationResult": "option_permutation",
    },
)
