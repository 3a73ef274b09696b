"""How a model's false-alarm budget is shared by its watched metrics."""

from actors.drift.interface import check_count, check_number


def share_budget(model_budget: float, n_metrics: int) -> float:
    """Return the `false_alarm_every` of each of a model's `n_metrics` detectors, in events of its metric.

    Every metric gets the same share. Rates of false alarms add up, whether or not the metrics are correlated (an
    expectation is additive), so n detectors that each alarm falsely once in n * B events do so together at most once
    in B. Correlated metrics alarm together and spend less, but nobody knows beforehand by how much, so that is not
    claimed back. Both directions are inside a detector's own budget. One false episode often holds alarms of several
    metrics, so episodes are rarer still.

    >>> share_budget(10_000, 3)
    30000.0
    """
    budget = check_number("false_alarm_every", model_budget, above=0)
    return budget * check_count("n_metrics", n_metrics, low=1, high=1_000_000)
