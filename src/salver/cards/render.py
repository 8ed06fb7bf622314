"""Documents as HTML and Markdown. What anybody has typed is text in both, whatever it looks like.

Characters that would steer a terminal or turn a line around are written out. The HTML is one file without
scripts that loads nothing, reads on a phone and prints.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, Final, Literal

from salver.cards.document import Document, moment, number
from salver.protocol.errors import SalverError
from salver.protocol.printable import printable
from salver.protocol.verdict import Verdict

__all__ = ["Format", "render"]

Format = Literal["html", "md"]

_TEMPLATES: Final = {"html": "document.html.j2", "md": "document.md.j2"}
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")
_VERDICTS: Final = frozenset(verdict.value for verdict in Verdict)


def render(document: Document, form: Format) -> str:
    """The document in one of the formats; raises UNSUPPORTED without jinja2."""
    try:
        import jinja2  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError("UNSUPPORTED", "cards need jinja2", "pip install 'salver[evaluation]'") from None
    environment = jinja2.Environment(
        autoescape=form == "html",  # noqa: S701 - the other is Markdown, with a filter of its own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_as_html if form == "html" else _as_markdown,
    )
    environment.filters |= {"cell": number, "moment": moment}
    environment.tests["verdict"] = lambda value: isinstance(value, str) and value in _VERDICTS
    source = resources.files(__package__).joinpath(_TEMPLATES[form]).read_text("utf-8")
    return environment.from_string(source).render(document=document)


def _as_html(value: Any) -> Any:
    """What a template puts in, before it is escaped."""
    return printable(value) if type(value) is str else value


def _as_markdown(value: Any) -> str:
    r"""What a template puts in, as plain text of one line.

    >>> _as_markdown("a | <b>\n# c")
    'a \\| \\<b\\> \\# c'
    """
    return _SPECIAL.sub(r"\\\1", printable(" ".join(str(value).split())))
