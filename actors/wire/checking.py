"""Which rows of a batch count, and which of their values; the same batch at the same time always gets the same verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from actors.checks import stand_in
from actors.replies import Rejection
from actors.wire.batch import Batch, Bools, Column, Floats, Payload
from actors.wire.names import NAMED
from actors.wire.packing import unpack

MAX_EXTRAS_BYTES: Final = 16 * 1024
MAX_LISTED: Final = 1000  # rejections that a reply lists one by one; how many there are follows from the counts
MAX_WEIGHT: Final = 1e12
WEIGHT_RULE: Final = f"must be a number above 0, at most {MAX_WEIGHT:g}"
AHEAD_S: Final = 300.0  # a clock ahead by this much is accepted; a value beyond is in milliseconds or wrong
_Bad = tuple[str, Floats, Bools, str]  # field, values, the rows where it is wrong, rule
_RULES: Final = {True: "must be a number from 0 to 1", False: "must be a finite number"}  # whether it is one of NAMED


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which rows count, and which of their values.

    `batch` is the batch without its bad values: only a NaN or an infinity alongside a finite value is dropped, and `bad_values`
    counts those of the rows that count. `ok: bool[n]` is None where all rows count; `listed` holds at most MAX_LISTED of those
    that do not, `bad_value` one of the values that were left out.
    """

    batch: Batch
    ok: Bools | None
    rejected: int
    listed: list[Rejection]
    bad_values: int = 0
    bad_value: Rejection | None = None


def check(batch: Batch, now_s: float, skip: int = 0) -> Verdict:  # noqa: C901  a pass over the columns, one check each
    """Say which rows from `skip` on count at the time `now_s`; `index` of a rejection counts from the batch's first row.

    The same batch at the same time always gets the same verdict: a log is read again with the time it was received.
    """
    bad: list[_Bad] = []
    if not (float(batch.times.min()) >= 0.0 and float(batch.times.max()) <= now_s + AHEAD_S):
        with np.errstate(invalid="ignore"):
            wrong = ~((batch.times >= 0.0) & (batch.times <= now_s + AHEAD_S))
        bad.append(("timestamp", batch.times, wrong, "must be seconds since the epoch, not in the future"))
    if batch.weights is not None:
        bad += _bad_weights(batch.weights)
    dropped: list[_Bad] = []  # values that are left out alone
    filled: Bools | None = np.zeros(batch.rows, dtype=np.bool_)
    columns: dict[str, Column] | None = None
    for name, column in batch.columns.items():
        cleaned = _cleaned(name, column, bad, dropped)
        if cleaned is not column:
            columns = dict(batch.columns) if columns is None else columns
            columns[name] = cleaned
        if cleaned.present is None:
            filled = None
        elif filled is not None:
            filled |= cleaned.present
    if filled is not None and not filled.all():
        bad += [(name, values, wrong & ~filled, rule) for name, values, wrong, rule in dropped]
        bad.append(("metrics", np.zeros(batch.rows), ~filled, "must hold at least one number"))
    if batch.texts:
        lengths = _text_bytes(batch)
        wrong = lengths > MAX_EXTRAS_BYTES
        if wrong.any():
            bad.append(("extras", lengths, wrong, f"must have at most {MAX_EXTRAS_BYTES} bytes"))
    cleaned_batch = batch if columns is None else replace(batch, columns=columns)
    ok, listed = (None, []) if not bad else _listed(batch.rows, skip, bad)
    rejected = 0 if ok is None else int((~ok[skip:]).sum())
    if not dropped:
        return Verdict(cleaned_batch, ok, rejected, listed)
    counted = [(name, values, wrong if ok is None else wrong & ok, rule) for name, values, wrong, rule in dropped]
    bad_values = sum(int(wrong[skip:].sum()) for _, _, wrong, _ in counted)
    _, left_out = _listed(batch.rows, skip, counted, most=1)
    return Verdict(cleaned_batch, ok, rejected, listed, bad_values, left_out[0] if left_out else None)


def clamped(batch: Batch, now_s: float) -> tuple[Batch, float]:
    """Return a batch whose times its sender has stamped, none of them ahead of AHEAD_S, and by how many seconds one was.

    What is no time at all (NaN, infinity) stays, to be rejected alone.
    """
    ahead = (batch.times > now_s + AHEAD_S) & (batch.times < np.inf)
    if not ahead.any():
        return batch, 0.0
    return replace(batch, times=np.where(ahead, now_s, batch.times)), float(batch.times[ahead].max()) - now_s


def recheck(payload: Payload, received_at: float, skip: int) -> Verdict:
    """Read a batch of the log again: the verdict that it got when it was received."""
    return check(unpack(payload, stored=True), received_at, skip)


def _text_bytes(batch: Batch) -> Floats:
    lengths = np.zeros(batch.rows)
    for name, column in batch.columns.items():
        if name not in NAMED:
            lengths += float(len(name) + 9) if column.present is None else (len(name) + 9.0) * column.present
    for name, cells in batch.texts.items():
        lengths += np.fromiter(
            (0 if cell is None else len(name) + len(cell.encode("utf-8", "surrogatepass")) for cell in cells),
            np.float64,
            batch.rows,
        )
    return lengths


def _cleaned(name: str, column: Column, bad: list[_Bad], dropped: list[_Bad]) -> Column:
    """Return the column without what is no finite number; note in `dropped` what that is, in `bad` what is out of range."""
    named = name in NAMED
    low, high = float(column.values.min()), float(column.values.max())
    if (low >= 0.0 and high <= 1.0) if named else (math.isfinite(low) and math.isfinite(high)):
        return column
    finite = np.isfinite(column.values)
    if named:
        wrong = finite & ~((column.values >= 0.0) & (column.values <= 1.0))
        wrong = wrong if column.present is None else wrong & column.present
        if wrong.any():
            bad.append((name, column.values, wrong, _RULES[named]))
    lost = ~finite if column.present is None else ~finite & column.present
    if not lost.any():
        return column
    dropped.append((name, column.values, lost, _RULES[named]))
    return Column(column.values, finite if column.present is None else finite & column.present)


def _bad_weights(weights: Column) -> list[_Bad]:
    low, high = float(weights.values.min()), float(weights.values.max())
    if weights.present is None and low > 0.0 and high <= MAX_WEIGHT:
        return []
    wrong = ~((weights.values > 0.0) & (weights.values <= MAX_WEIGHT))
    wrong = wrong if weights.present is None else wrong & weights.present
    return [("n", weights.values, wrong, WEIGHT_RULE)] if wrong.any() else []


def _listed(rows: int, skip: int, bad: list[_Bad], most: int = MAX_LISTED) -> tuple[Bools, list[Rejection]]:
    """Return which rows have nothing bad, and a rejection for each of the others from `skip` on, at most `most`."""
    ok = np.ones(rows, dtype=np.bool_)
    listed: list[Rejection] = []
    for name, values, wrong, rule in bad:
        new = np.flatnonzero(wrong & ok)
        ok &= ~wrong
        for row in new[new >= skip][: most - len(listed)].tolist():
            value = None if name == "metrics" else stand_in(float(values[row]))
            listed.append({"index": row, "field": name, "value": value, "rule": rule})
    listed.sort(key=lambda rejection: rejection["index"])
    return ok, listed
