"""Shows names and messages so that they cannot be confused, and contain no terminal commands."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Letters of other scripts that common fonts draw like a letter of ASCII. A whole word of them, or of them and ASCII, reads as
# another word; one with any other letter of its script does not. After the table of confusables of Unicode TS 39.
_CYRILLIC: Final = "аеорсухіјѕһԁԛԝқАВЕЗКМНОРСТУХІЈЅҮԌԚԜӏ"
_GREEK: Final = "αορτυνικγχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ"
_OTHERS: Final = "ıɑɡɩʋոսօցհⅼᎪᏴᏟᎬᏀᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ"  # noqa: RUF001  that is what they are for
_ALIKE: Final = frozenset(_CYRILLIC + _GREEK + _OTHERS)
_WORD: Final = re.compile(r"[^\W\d_]+")
# Control and format characters, halves of pairs, unassigned ones, and the separators of lines and paragraphs.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str) -> str:
    r"""Return `text` with escapes for what cannot be seen but line ends and tabs, and for letters that look like others.

    >>> print(plain("fraud"), plain("fr\u0430ud"), plain("modèle"), plain("a\u200bb"))
    fraud fr\u0430ud modèle a\u200bb
    """
    if text.isascii() and text.isprintable():
        return text
    visible = "".join(_escaped(each) if _is_hidden(each) else each for each in text)
    return visible if visible.isascii() else _WORD.sub(lambda word: _told_apart(word[0]), visible)


def _is_hidden(each: str) -> bool:
    return each not in "\n\t" and unicodedata.category(each) in _HIDDEN


def _told_apart(word: str) -> str:
    if word.isascii() or not all(each.isascii() or _looks_ascii(each) for each in word):
        return word
    return "".join(each if each.isascii() else _escaped(each) for each in word)


def _looks_ascii(letter: str) -> bool:
    if letter in _ALIKE:
        return True
    # Full-width and mathematical letters and ligatures say themselves which letters they are.
    made_of = unicodedata.normalize("NFKC", letter)
    return made_of.isascii() and unicodedata.decomposition(letter).startswith(("<wide>", "<font>", "<compat>"))


def _escaped(each: str) -> str:
    return each.encode("unicode_escape").decode("ascii")
