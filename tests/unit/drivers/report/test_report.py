"""The report: what it holds, and that it is one page that runs nothing and loads nothing."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from drivers import cli
from drivers.report import printing
from drivers.report.figure import Bar, Curve, Mark, Row, bars, line_chart, timeline
from tests.unit.ui.conftest import SCRIPT, write

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The tags of a page, which must close each other, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href"} and not (value or "").startswith("#")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = f"sqlite:///{tmp_path_factory.mktemp('report')}/store"
    with closing(write(found)):
        pass
    return found


def test_the_report_is_one_page_without_script_that_loads_nothing(url: str, tmp_path: Path) -> None:
    assert cli.main(["report", "--storage", url, "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "iframe", "link", "img", "object"} & set(page.tags)
    assert page.loaded == []
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.ids) == len(set(page.ids))


def test_names_are_escaped_wherever_they_stand(url: str, tmp_path: Path) -> None:
    assert cli.main(["report", "--storage", url, "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert SCRIPT not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3


def test_the_report_tells_what_explain_tells_and_shows_each_metric(url: str, tmp_path: Path) -> None:
    assert cli.main(["report", "m", "--storage", url, "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "accuracy fell from 0.8998" in text
    assert "accuracy over time" in text
    assert "alarm: accuracy" in text
    assert "false_alarm_every" in text
    assert "&lt;script&gt;" not in text


def test_a_program_gets_one_value_and_the_file_is_written_all_the_same(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "m", "--storage", url, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "report.html", "pdf": None, "models": ["m"], "others": 0}
    assert (tmp_path / "report.html").exists()


def test_since_leaves_out_what_lies_before(url: str, tmp_path: Path) -> None:
    for since, begin in (("100s", "2026-11-18"), ("2d", "2026-11-16")):
        assert cli.main(["report", "m", "--storage", url, "--since", since, "-o", str(tmp_path / "r.html")]) == 0
        assert re.search(r"<title>Models from (\S+)", (tmp_path / "r.html").read_text(encoding="utf-8")).group(1) == begin  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody"], "the store must hold model 'nobody' to report on"),
        (["--label", "team=none"], "the store must hold a model with team=none to report on"),
        (["--since", "30"], "must be a duration like 30m, 6h or 90d, got '30'"),
    ],
)
def test_what_matches_nothing_is_said_and_no_file_is_written(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert cli.main(["report", *arguments, "--storage", url, "-o", str(tmp_path / "r.html")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_pdf_without_a_browser_is_refused_before_anything_is_written(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    file = tmp_path / "r.html"
    assert cli.main(["report", "--storage", url, "-o", str(file), "--pdf", str(tmp_path / "r.pdf")]) == 1
    assert "--pdf needs one of chromium" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_is_printed_to_pdf(tmp_path: Path) -> None:
    printing.to_pdf(printing.browser(), "<!doctype html><title>t</title><p>hello", tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


NASTY = 'a<b>&"c'


@pytest.mark.parametrize(
    "drawn",
    [
        line_chart("a", NASTY, [Curve(NASTY, [(0.0, 1.0), (60.0, 2.0)])], [Mark(30.0, "alarm", NASTY)], (0.0, 60.0)),
        line_chart("a", NASTY, [], [], (0.0, 1.0)),
        timeline("b", NASTY, [Row(NASTY, [(0.0, 30.0, NASTY)], [Mark(10.0, "order", NASTY)])], (0.0, 60.0)),
        bars("c", NASTY, "errors", [Bar(NASTY, 5.0, 2.0), Bar(NASTY, -3.0)]),
        bars("c", NASTY, "errors", [Bar(NASTY, 0.0)]),
    ],
)
def test_a_figure_is_well_formed_and_says_in_words_what_it_shows(drawn: str) -> None:
    root = ET.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    title, described = root.find(f"{space}title"), root.find(f"{space}desc")
    assert title is not None
    assert NASTY in (title.text or "")
    assert described is not None
    assert described.text
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {described.get('id')}"
