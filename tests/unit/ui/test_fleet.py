"""The table of the fleet: filters, orders, pages."""

from __future__ import annotations

from typing import Any

from actors import labels
from actors.ui import fleet


def seen(state: str, events: int, **more: Any) -> dict[str, Any]:
    return {"state": state, "events": events, "late": 0, "rejected": 0, "last_at": 1.0, "versions": {}, **more}


TABLE = fleet.rows_of(
    {
        f"m{i:03d}": seen("drifting" if i % 10 == 0 else "stable", i, labels={"team": "risk" if i < 50 else "ads"})
        for i in range(120)
    }
)


def test_what_drifts_stands_on_top_and_the_counts_are_of_all_that_match() -> None:
    page = fleet.page_of(TABLE, fleet.Wanted())
    assert [row.state for row in page.rows[:12]] == ["drifting"] * 12
    assert (page.total, page.pages, page.counts) == (120, 3, {"drifting": 12, "stable": 108})
    few = fleet.page_of(TABLE, fleet.Wanted(state="drifting", labels=labels.parse("team=risk")))
    assert (few.total, few.counts) == (5, {"drifting": 5, "stable": 45})


def test_a_filter_or_an_order_leaves_the_table_as_it_is() -> None:
    before = list(TABLE)
    page = fleet.page_of(TABLE, fleet.Wanted(sort="events", descending=True, page=99))
    assert (page.page, page.rows[-1].events) == (3, 0)
    assert fleet.page_of(TABLE, fleet.Wanted(text="M00")).total == 10
    assert list(TABLE) == before


def test_an_order_that_is_none_is_the_usual_one() -> None:
    assert fleet.page_of(TABLE, fleet.Wanted(sort="colour")).sort == "state"
