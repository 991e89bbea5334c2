"""Estimators of other libraries: copies of them, and their names."""

from typing import TypeVar

from sklearn.base import clone

Estimator = TypeVar("Estimator")


def fresh(estimator: Estimator) -> Estimator:
    """Return an unfitted copy (a deep one, where it is no scikit-learn estimator); the caller's own stays as it was."""
    copy: Estimator = clone(estimator, safe=False)
    return copy


def name_of(estimator: object) -> str:
    """Return the estimator's class name."""
    return type(estimator).__name__
