"""What is wrong with notifications in the configuration is found by `config check`, and not at night."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors import config
from actors.config.notify import QuietHours
from actors.inspection import inspect

HOOK = {"kind": "webhook", "url": "http://127.0.0.1/"}
SATURDAY = 1_795_219_200.0  # 2026-11-21, midnight in UTC


@pytest.mark.parametrize(
    ("notify", "problem"),
    [
        ({"routes": [{"receivers": ["pager"]}]}, "notify: routes.0: receivers must be among those of this section (chat), got"),
        ({"routes": [{"receivers": ["chat"], "kinds": ["alrm"]}]}, "notify.routes.0.kinds.0: must be 'alarm', 'warning'"),
        ({"routes": [{"receivers": ["chat"], "kinds": ["recovered"]}]}, "recovered goes wherever its alarm went"),
        ({"routes": [{"receivers": ["chat"], "labels": "=risk"}]}, "notify.routes.0.labels: labels must be a selector"),
        ({"routes": [{"receivers": ["chat"], "group_weight": 1}]}, "group_weight: unknown key, did you mean group_wait?"),
        ({"routes": [{"receivers": ["chat"], "quiet": {"from": "22", "to": "7:00"}}]}, "quiet.from: must be a time of the day"),
        (
            {"routes": [{"receivers": ["chat"], "quiet": {"from": "22:00", "to": "07:00", "zone": "Mars"}}]},
            "notify.routes.0.quiet.zone: zone must be a time zone known to this machine, like Europe/Berlin, got",
        ),
        (
            {"receivers": {"chat": {"kind": "webhook", "urk": "http://h/"}}},
            "chat.urk: unknown key, did you mean url?",
        ),
        (
            {"receivers": {"chat": {"kind": "apprise", "url": "slack://T/B"}}},
            "url: must hold a reference like ${NAME}",
        ),
    ],
)
def test_what_is_wrong_is_named(notify: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="configuration: ") as found:
        config.load({"notify": {"receivers": {"chat": HOOK}} | notify})
    assert problem in str(found.value)


@pytest.mark.parametrize(
    ("notify", "problem"),
    [
        ({"title": "{{ title"}, "notify.title: must be a template of Jinja: unexpected end of template"),
        (
            {"text": "{{ alerts }}"},
            "notify.text: may name title, severity, group, firing, resolved, link, receiver, got",
        ),
        ({"text": "{{ title|shout }}"}, "notify.text: must be a template of Jinja: No filter named 'shout'"),
        (
            {"receivers": {"chat": {"kind": "webhok"}}},
            "notify.receivers.chat.kind: must be one of alertmanager, apprise",
        ),
    ],
)
def test_a_template_with_an_error_and_a_receiver_of_no_kind_are_problems(notify: dict[str, Any], problem: str) -> None:
    found = inspect(config.load({"notify": {"receivers": {"chat": HOOK}} | notify}), {})
    assert any(str(each).startswith(problem) for each in found if each.problem)


@pytest.mark.parametrize(
    ("routes", "note"),
    [
        ([{"receivers": ["chat"], "labels": "team=rsk"}], "notify.routes.0: matches nothing: no model has the labels team=rsk"),
        (
            [{"receivers": ["chat"], "kinds": ["order_done"], "severity": "warning"}],
            "notify.routes.0: matches nothing: order_done are never more severe than info",
        ),
        (
            [{"receivers": ["chat"]}, {"receivers": ["chat"], "models": "fraud-*", "severity": "critical"}],
            "notify.routes.1: matches nothing: a route before it takes all for the same receivers",
        ),
        ([{"receivers": ["chat"], "group_by": ["tier"]}], "notify.routes.0.group_by: no model has a label tier"),
        ([{"receivers": ["chat"], "labels": "team=risk"}], "notify.receivers.hook: no route names it: it is told nothing"),
    ],
)
def test_a_route_that_matches_nothing_is_a_note(routes: list[dict[str, Any]], note: str) -> None:
    document = {
        "notify": {"receivers": {"chat": HOOK, "hook": HOOK}, "routes": routes},
        "models": {"fraud-*": {"labels": {"team": "risk"}}},
    }
    found = inspect(config.load(document), {})
    assert any(str(each).startswith(note) for each in found if not each.problem)


def test_what_its_environment_lacks_is_a_note_and_what_may_be_secret_is_not_shown() -> None:
    chat = {"kind": "apprise", "url": "mailto://me:${PASSWORD}@example.org"}
    settings = config.load({"notify": {"receivers": {"chat": chat, "hook": HOOK | {"secret_env": "SECRET"}}}})
    notes = [str(each) for each in inspect(settings, {})]
    assert sum("which is not set here" in note for note in notes) == 2
    assert "notify.receivers.chat.url: differs" in config.differences(config.Settings(), settings)


@pytest.mark.parametrize(
    ("hours", "severity", "held"),
    [
        (("22:00", "07:00", None), "warning", [22, 23, 0, 1, 2, 3, 4, 5, 6]),
        (("09:00", "17:00", ["sat"]), "warning", list(range(9, 17))),
        (("22:00", "07:00", ["sun"]), "warning", []),
        (("22:00", "02:00", ["fri"]), "warning", [0, 1]),
        (("00:00", "00:00", None), "warning", list(range(24))),
        (("00:00", "00:00", None), "critical", []),
    ],
)
def test_quiet_hours_hold_by_the_clocks_of_their_zone(hours: tuple[str, str, Any], severity: Any, held: list[int]) -> None:
    start, end, days = hours
    said = {"from": start, "to": end, "zone": "Asia/Tokyo"} | ({} if days is None else {"days": days})
    quiet = QuietHours.model_validate(said)
    saturday = SATURDAY - 9 * 3600  # midnight in Tokyo
    assert [hour for hour in range(24) if quiet.hold(severity, saturday + hour * 3600 + 1)] == sorted(held)


def test_it_survives_the_store_and_every_receiver_gets_all_warnings_where_no_route_is_given() -> None:
    said = {"receivers": {"chat": HOOK}, "routes": [{"receivers": ["chat"], "quiet": {"from": "22:00", "to": "07:00"}}]}
    settings = config.load({"notify": said})
    assert config.parse(json.loads(config.document(settings)), "store") == settings
    (route,) = config.load({"notify": {"receivers": {"chat": HOOK, "hook": HOOK}}}).notify.in_order()
    assert (route.receivers, route.least, route.models) == (["chat", "hook"], "warning", "*")
