"""Computes the promise of a version: its accuracy in cross-validation on its own training rows.

The retrain rule (`actors.drift.Shortfall`) compares a live version with its promise. A promise from one hold-out of the
last rows is worse than none; one from blocks in the order of time is good to a few points, which is enough.
"""

from typing import Any, NamedTuple


class Promise(NamedTuple):
    """The share of the training rows that were predicted right by a model that had not seen them, and their number."""

    value: float
    n: int


def cross_validated(estimator: Any, X: Any, y: Any, *, blocks: int = 4) -> Promise:  # noqa: N803  scikit-learn's names
    """Return the accuracy of `estimator` on its training rows in cross-validation, and how many rows they are.

    The rows, oldest first, are cut into `blocks` blocks; each is predicted by a fresh copy of the estimator that was
    trained on all others. That costs as much as `blocks` trainings. The estimator itself is left as it is.

    Args:
        estimator: a classifier of scikit-learn, or anything with its `fit`, `predict` and `get_params`.
        X: the features, one row a sample: an array, a sparse matrix, a list or a data frame.
        y: the true classes.
        blocks: from 2 to the number of rows.

    Raises:
        ValueError: X and y differ in length, hold too few rows, or `y` holds something else than classes.
        ModuleNotFoundError: scikit-learn is not installed; the extra `promise` brings it.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_digits(return_X_y=True)
        >>> value, n = cross_validated(GaussianNB(), X, y)
        >>> round(value, 2), n
        (0.81, 1797)

        With a retrain order in hand: `order.done(new_version="8", promise=value, promise_n=n)`.
    """
    try:
        from sklearn.base import clone  # an extra
        from sklearn.model_selection import KFold
        from sklearn.utils import _safe_indexing, indexable
        from sklearn.utils.multiclass import type_of_target
        from sklearn.utils.validation import _num_samples
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a cross-validated promise needs scikit-learn: pip install 'visutility[promise]'") from error
    features, classes = indexable(X, y)
    n = int(_num_samples(features))
    if isinstance(blocks, bool) or not isinstance(blocks, int) or not 2 <= blocks <= n:
        raise ValueError(f"blocks must be a whole number from 2 to the {n} rows, got {blocks!r}")
    kind = type_of_target(classes, input_name="y")
    if kind not in {"binary", "multiclass"}:
        raise ValueError(f"y must hold one class a row, got {kind} values")
    hits = 0
    for others, block in KFold(blocks, shuffle=False).split(features):
        model = clone(estimator)
        model.fit(_safe_indexing(features, others), _safe_indexing(classes, others))
        predicted = model.predict(_safe_indexing(features, block))
        truth = _safe_indexing(classes, block)
        hits += sum(bool(a == b) for a, b in zip(truth, predicted, strict=True))
    return Promise(hits / n, n)
