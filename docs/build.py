"""Build the documentation into a folder, strictly: a broken link, or an asset of another host, fails the build.

    python -m docs.build                # zensical.toml -> site/
    python -m docs.build --config FILE

Zensical's strict mode finds broken links and anchors in Markdown, and broken references to Python objects. It does not
look at images, at links in generated or HTML text, nor at blocks that fail while they are executed; `problems` and the log
handler here do.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import zensical

ROOT = Path(__file__).parents[1]
# What a browser fetches by itself to show a page; a link (`a`) is only followed by a reader.
_ASSETS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class _Page(HTMLParser):
    """The addresses that a page links to or loads, and the ids that it defines."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.assets: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if found.get(_ASSETS.get(tag, "")):
            self.assets.add(found[_ASSETS[tag]])


def problems(site: Path) -> Iterator[str]:
    """Yield a line for each broken link in the built `site`, and for each asset of another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in sorted(pages.items()):
        where = path.relative_to(site)
        for address in sorted(page.assets):
            if urlsplit(address).netloc:
                yield f"{where}: loads {address} from another host"
        for address in sorted(page.links | page.assets):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{where}: {address} leads to no file"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield f"{where}: {address} leads to no heading"


class _Kept(logging.Handler):
    """Keeps what was logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


def build(config: Path) -> list[str]:
    """Build the site of `config` and return what is wrong with it, a line each."""
    settings = tomllib.loads(config.read_text(encoding="utf-8"))["project"]
    site = (config.parent / settings["site_dir"]).resolve()
    shutil.rmtree(site, ignore_errors=True)  # a page that has moved would stay
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    sys.path.insert(0, str(ROOT))
    try:
        zensical.build(str(config), {"clean": True, "strict": True})
    except RuntimeError as error:
        kept.lines.append(str(error))
    finally:
        logging.getLogger().removeHandler(kept)
    return [*kept.lines, *problems(site)]


def main(argv: Sequence[str] | None = None) -> int:
    """Build, print what is wrong to standard error, and return 1 where anything is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "zensical.toml")
    found = build(parser.parse_args(argv).config.resolve())
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
