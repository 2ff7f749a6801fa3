"""Texts of others, as a line or a table shows them."""

from __future__ import annotations


def escape_unprintable(text: str) -> str:
    """The text with escapes in place of characters that move a cursor or begin a line.

    Names, values and errors come from elsewhere: from DNS, from endpoints, from whoever answers.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
