from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers import replay
from drivers.replay import event_files, sending

NOW_S = 1_790_000_000.0


def read(path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    asked = {"model": None, "version": None, "since_s": None, "now_s": NOW_S} | options
    found = list(event_files.chunks(path, **asked))
    return [event for chunk in found for event in chunk.events], [bad for chunk in found for bad in chunk.rejected]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_csv_file_is_read_column_by_column(tmp_path: Path) -> None:
    file = written(
        tmp_path / "log.csv",
        "model,version,timestamp,accuracy,latency_ms,site",
        "fraud,7,1700000000,0.91,12.5,north",
        "fraud,7,2023-11-14T22:13:21+00:00,,13,",
    )
    events, rejected = read(file)
    assert rejected == []
    assert events == [
        {
            "model_name": "fraud",
            "model_version": "7",
            "timestamp": 1.7e9,
            "accuracy": 0.91,
            "extras": {"latency_ms": 12.5, "site": "north"},
        },
        {"model_name": "fraud", "model_version": "7", "timestamp": 1.7e9 + 1, "extras": {"latency_ms": 13.0}},
    ]


def test_jsonl_takes_the_wire_s_own_form_and_a_flat_one(tmp_path: Path) -> None:
    wire = {"model_name": "a", "timestamp": 5.0, "recall": 0.5, "extras": {"auc": 0.7}}
    flat = {"model": "a", "timestamp": 6.0, "auc": 0.8}
    file = written(tmp_path / "log.jsonl", json.dumps(wire), "", json.dumps(flat))
    assert read(file)[0] == [wire, {"model_name": "a", "timestamp": 6.0, "extras": {"auc": 0.8}}]


def test_a_bad_line_is_refused_alone_with_its_number(tmp_path: Path) -> None:
    file = written(tmp_path / "log.csv", "model,accuracy,timestamp", "m,0.9,1", "m,1.2,2", "m,0.8,soon", "m,0.7,4")
    events, rejected = read(file)
    assert [event["accuracy"] for event in events] == [0.9, 0.7]
    assert [(bad["line"], bad["field"], bad["value"]) for bad in rejected] == [(3, "accuracy", 1.2), (4, "timestamp", "soon")]


def test_what_a_line_leaves_out_stands_in_from_the_command_line(tmp_path: Path) -> None:
    file = written(tmp_path / "log.csv", "accuracy,timestamp", "0.9,1", "0.8,20")
    events, _ = read(file, model="m", version="v2", since_s=10.0)
    assert events == [{"accuracy": 0.8, "timestamp": 20.0, "model_name": "m", "model_version": "v2"}]
    assert "model_name" in read(file)[1][0]["field"]


@pytest.mark.parametrize(
    ("name", "lines", "value", "rule"),
    [
        (
            "log.csv",
            ["model,accuracy", "m,0.9", "m", "m,0.8"],
            "m",
            r"as many cells as the header has names \(2, this line has 1\)",
        ),
        ("log.csv", ["model,accuracy", "m,0.9", "m,0.9,7", "m,0.8"], "m,0.9,7", "as many cells"),
        (
            "log.jsonl",
            ["", '{"model": "m", "recall": 1}', "{", '{"model": "m", "recall": 1}'],
            "{",
            r"must be JSON \(Expecting",
        ),
        (
            "log.jsonl",
            ["", '{"model": "m", "recall": 1}', "[1]", '{"model": "m", "recall": 1}'],
            "[1]",
            "must be a JSON object",
        ),
    ],
)
def test_a_line_that_is_no_event_is_refused_alone(tmp_path: Path, name: str, lines: Any, value: Any, rule: Any) -> None:
    events, rejected = read(written(tmp_path / name, *lines))
    assert len(events) == 2
    assert [(bad["line"], bad["field"], bad["value"]) for bad in rejected] == [(3, "line", value)]
    assert re.search(rule, rejected[0]["rule"])


def test_a_file_of_another_kind_or_one_that_cannot_be_read_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in .csv, .jsonl or .ndjson"):
        read(written(tmp_path / "log.parquet", "x"))
    with pytest.raises(ValueError, match=r"log.csv:2: "):
        read(written(tmp_path / "log.csv", "model,note", 'm,"unended'))


@pytest.mark.parametrize("written_as", ["1.10", "1.0", "007", "1e3", "2024_01"])
def test_a_version_is_the_text_that_was_written(tmp_path: Path, written_as: Any) -> None:
    """1.10 is not 1.1, and 007 not 7; in JSON a number, in CSV a cell."""
    file = written(tmp_path / "log.csv", "model,version,accuracy", f"{written_as},{written_as},0.9")
    assert [(event["model_name"], event["model_version"]) for event in read(file)[0]] == [(written_as, written_as)]
    if written_as in {"1.10", "1.0", "1e3"}:
        line = f'{{"model": "m", "version": {written_as}, "accuracy": 0.9, "extras": {{"x": 1.5}}}}'
        assert [event["model_version"] for event in read(written(tmp_path / "log.jsonl", line))[0]] == [written_as]


def test_a_whole_number_as_a_version_is_its_text(tmp_path: Path) -> None:
    assert read(written(tmp_path / "log.jsonl", '{"model": "m", "version": 7, "recall": 1}'))[0][0]["model_version"] == "7"
    assert (
        "model_version" in read(written(tmp_path / "log.jsonl", '{"model": "m", "version": true, "recall": 1}'))[1][0]["field"]
    )


def test_bad_lines_are_named_with_rule_and_value_to_programs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = configuration(tmp_path / "now.yaml", "cooldown: 7m")
    file = written(tmp_path / "log.csv", "model,accuracy", "m,0.9", "m,7")
    assert replay.main([str(file), "--dry-run", "--config", str(now), "-o", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(each["line"], each["field"], each["value"]) for each in told["rejected"]] == [(3, "accuracy", 7.0)]
    assert told["models"]["m"]["now"]["summary"]["events"] == 1, "a rejected line is no event"
    file = written(tmp_path / "none.csv", "model,accuracy", "m,7")
    assert replay.main([str(file), "--dry-run", "--config", str(now), "-o", "json"]) == 2
    assert "none.csv; line 2: accuracy must" in json.loads(capsys.readouterr().out)["error"]


def test_a_moment_is_seconds_or_iso() -> None:
    assert event_files.moment("12.5") == 12.5
    assert event_files.moment("1970-01-02") == 86_400.0
    assert event_files.moment("1970-01-01T01:00:00+01:00") == 0.0
    with pytest.raises(ValueError, match="like 2026-11-23T14:00, got 'soon'"):
        event_files.moment("soon")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """600 events at 0.93, then 300 at 0.70, one a minute."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.93, 0.01, 600), rng.normal(0.70, 0.02, 300)])
    lines = [f"m,v1,{60.0 * number},{value:.5f}" for number, value in enumerate(values)]
    return written(tmp_path / "history.csv", "model,version,timestamp,accuracy", *lines)


def configuration(path: Path, *lines: str) -> Path:
    return written(path, "defaults:", *(f"  {line}" for line in lines))


def test_what_if_puts_two_configurations_side_by_side(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = configuration(tmp_path / "now.yaml", "false_alarm_every: 100000")
    deaf = configuration(tmp_path / "deaf.yaml", "watch: {accuracy: {detector: threshold, lower: 0.1}}")
    plot = tmp_path / "both.svg"
    arguments = [str(history), "--config", str(now), "--what-if", str(deaf), "--plot", str(plot), "-o", "json"]
    assert replay.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)["models"]["m"]
    assert told["now"]["summary"]["retrains"] == 1
    assert told["now"]["episodes"][0]["alarm"]["direction"] == "down"
    assert 600 * 60 <= told["now"]["summary"]["first_alarm_at"] <= 620 * 60
    assert told["what-if"]["summary"] | {"alarms": 0, "retrains": 0, "events": 900} == told["what-if"]["summary"]
    assert "<svg" in plot.read_text(encoding="utf-8")


def test_a_dry_run_says_what_the_configuration_would_have_made_of_it(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = configuration(tmp_path / "now.yaml", "false_alarm_every: 100000")
    assert replay.main([str(history), "--dry-run", "--config", str(now)]) == 0
    out = capsys.readouterr().out
    assert "retrains\t1" in out
    assert "what-if" not in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "replay needs a FILE, or --what-if OTHER"),
        (["--dry-run"], "--dry-run needs a FILE"),
        (["nowhere.csv"], "nowhere.csv: there is no such file"),
        (["--what-if", "x.yaml", "--since", "soon"], "--since must be seconds since the epoch or like"),
        (["--what-if", "x.yaml", "--storage", "sqlite:////nowhere/store"], "there is none at sqlite:////nowhere/store"),
    ],
)
def test_a_command_line_that_means_nothing_is_said_so(arguments: Any, problem: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(arguments) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_bytes_that_are_no_utf8_reject_their_own_line(tmp_path: Path, name: str) -> None:
    good, bad = (
        (b"m,0.9", b"m\xff,0.9") if name == "log.csv" else (b'{"model": "m", "recall": 1}', b'{"model": "m\xff", "recall": 1}')
    )
    head = b"model,accuracy" if name == "log.csv" else b""
    (tmp_path / name).write_bytes(b"\n".join([head, good, bad, good]))
    events, rejected = read(tmp_path / name)
    assert [event["model_name"] for event in events] == ["m", "m"]
    assert [(each["line"], each["field"]) for each in rejected] == [(3, "model_name")]


def test_the_column_that_is_named_holds_the_predictions_behind_an_event(tmp_path: Path) -> None:
    file = written(tmp_path / "log.csv", "model,accuracy,n,count", "m,0.9,1,200", "m,0.8,2,", "m,0.7,3,-1")
    events, rejected = read(file, n_column="count")
    assert [(event.get("n"), event["extras"]) for event in events] == [(200.0, {"n": 1.0}), (None, {"n": 2.0})]
    assert [(bad["line"], bad["field"], bad["value"]) for bad in rejected] == [(4, "n", -1.0)]
    assert [event.get("n") for event in read(file)[0]] == [None] * 3  # a metric may be called n
    lines = '{"model_name": "m", "accuracy": 0.9, "n": 200}', '{"model": "m", "accuracy": 0.9, "n": 200}'
    events, _ = read(written(tmp_path / "log.jsonl", *lines))
    assert [(event.get("n"), event.get("extras")) for event in events] == [(200, None), (None, {"n": 200})]


def test_the_column_of_n_reaches_the_log(tmp_path: Path) -> None:
    logged = []

    class Metrics:
        def log(self, metrics: Any, **more: Any) -> None:
            logged.append((metrics, more))

    (event,) = read(written(tmp_path / "log.csv", "model,accuracy,count", "m,0.9,200"), n_column="count")[0]
    sending._log(Metrics(), event)
    assert logged == [({"accuracy": 0.9}, {"model": "m", "timestamp": None, "n": 200.0})]


def test_models_that_share_limits_are_rehearsed_together_and_their_orders_queue(tmp_path: Path, capsys: Any) -> None:
    random = np.random.default_rng(3)
    lines = []
    for number in range(900):
        level = 0.93 if number < 600 else 0.70
        lines += [f"{model},{60 * number + 1},{random.normal(level, 0.01):.4f}" for model in ("a", "b")]
    file = written(tmp_path / "log.csv", "model,timestamp,accuracy", *lines)
    now = written(tmp_path / "now.yaml", "defaults: {watch: {accuracy: {direction: both}}, cooldown: 12h}")
    other = written(tmp_path / "other.yaml", now.read_text(), "orders: {max_running: 1}")
    assert replay.main([str(file), "--config", str(now), "--what-if", str(other), "--takes", "1h", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    waits = {
        name: sorted(
            each["started_at"] - each["ordered_at"] for model in found.values() for each in model[name]["episodes"][:1]
        )
        for name in ("now", "what-if")
    }
    assert waits["now"] == [0.0, 0.0]
    assert waits["what-if"][0] == 0.0
    assert 3000.0 < waits["what-if"][1] <= 3600.0
