"""What every page that is printed or sent on is made of. It is one file that runs nothing and loads
nothing, and whatever somebody named stands on it as text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from billing import unseen

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 .-]")


def plain(text: str) -> str:
    """Text as HTML, with what nobody would see of it."""
    return escape(unseen.shown(text))


def document(title: str, running: str, style: str, body: Iterable[str]) -> Iterator[str]:
    """HTML, part by part. `running` is said on every printed sheet, beside its number."""
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="content-security-policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{plain(title)}</title><style>{style}{_sheets(running)}</style></head><body>\n"
    )
    yield from body
    yield "</body></html>\n"


def heading(title: str, word: str, figure: str) -> str:
    """What the page is of, and the one figure that matters."""
    return (
        f'<div class="title"><h1>{plain(title)}</h1><p class="total"><span>{plain(word)}</span>'
        f"<strong>{plain(figure)}</strong></p></div>\n"
    )


def facts(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What is known, each by its name."""
    yield "<dl>"
    for name, value in named:
        yield f'<div><dt>{plain(name)}</dt><dd dir="auto">{plain(value)}</dd></div>'
    yield "</dl>"


def table(columns: Sequence[tuple[str, int]], figures: int, css: str) -> str:
    """The beginning of a table: the columns' names with their widths in per cent, which are theirs
    whatever stands in them; the last `figures` of them are numbers.
    """
    texts = len(columns) - figures
    widths = "".join(f'<col style="width:{width}%">' for _, width in columns)
    cells = "".join(
        f'<th scope="col"{_figure(at >= texts)}>{plain(name)}</th>'
        for at, (name, _) in enumerate(columns)
    )
    return (
        f'<div class="wide"><table class="{css}"><colgroup>{widths}</colgroup>'
        f"<thead><tr>{cells}</tr></thead><tbody>\n"
    )


def table_end(texts: int, figures: int, words: str, figure: str) -> str:
    """With its last row, which has the place of so many columns for the words and the figure."""
    return (
        f'</tbody><tfoot><tr><th colspan="{texts}" scope="row">{plain(words)}</th>'
        f'<td class="figure" colspan="{figures}">{plain(figure)}</td></tr></tfoot></table></div>\n'
    )


def row(texts: Sequence[str], figures: Sequence[str]) -> str:
    cells = [f'<td dir="auto">{plain(text)}</td>' for text in texts]
    return f"<tr>{''.join(cells)}{_figures(figures)}</tr>\n"


def row_of_words(words: str, columns: int, figures: Sequence[str], before: str = "") -> str:
    """What has one text in the place of `columns`, perhaps with a number `before` it."""
    first = f"<td>{plain(before)}</td>" if before else ""
    said = f'<td colspan="{columns}" dir="auto">{plain(words)}</td>'
    return f"<tr>{first}{said}{_figures(figures)}</tr>\n"


def part(words: str, columns: int) -> str:
    """The heading of the rows that follow."""
    return f'<tr><th class="part" colspan="{columns}" scope="rowgroup">{plain(words)}</th></tr>\n'


def grouped(amount: str) -> str:
    """An amount as it is written by machines, with its thousands apart."""
    sign, digits = ("-", amount[1:]) if amount.startswith("-") else ("", amount)
    whole, point, rest = digits.partition(".")
    return f"{sign}{int(whole):,}{point}{rest}"


def day(at_us: int, zone: ZoneInfo) -> date:
    return _local(at_us, zone).date()


def shown_day(of: date) -> str:
    return f"{of.day} {of.strftime('%B %Y')}"


def shown_time(at_us: int, zone: ZoneInfo) -> str:
    """To the second, with what the zone is ahead of UTC by: a clock may show an hour twice."""
    return _local(at_us, zone).replace(microsecond=0).isoformat(sep=" ")


def _local(at_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone)


def _figures(figures: Sequence[str]) -> str:
    return "".join(f'<td class="figure">{plain(figure)}</td>' for figure in figures)


def _figure(is_one: bool) -> str:
    return ' class="figure"' if is_one else ""


def _sheets(running: str) -> str:
    """Nothing of the text can end the style: what is not plain is written by its number."""
    said = _NOT_PLAIN.sub(lambda found: f"\\{ord(found[0]):x} ", running)
    return (
        f'@page{{@top-left{{content:" "}}@bottom-left{{content:"{said}"}}'
        '@bottom-right{content:"Page " counter(page) " of " counter(pages)}}'
    )
