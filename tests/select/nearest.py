"""A classifier that fits in microseconds, for tests that fit thousands of times."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Nearest(ClassifierMixin, BaseEstimator):
    """One nearest neighbour, the first of equals."""

    def fit(self, X, y):
        self.X_, self.y_, self.classes_ = X, y, np.unique(y)
        return self

    def predict(self, X):
        return self.y_[((X[:, None] - self.X_[None]) ** 2).sum(axis=2).argmin(axis=1)]


def accuracy(model, X, y):
    """A scorer without scikit-learn's checks."""
    return float((model.predict(X) == y).mean())
