"""Completion in bash, for values after an equals sign too.

Bash cuts the command line into words at ``=`` and ``:`` as well (COMP_WORDBREAKS); click puts the
word under the cursor together again, but not when a part of the value is there already.
"""

from __future__ import annotations

from collections.abc import Sequence

from click.shell_completion import BashComplete, add_completion_class


def join_words(words: Sequence[str]) -> list[str]:
    """The arguments as the user wrote them, from the words that bash made of them."""
    joined: list[str] = []
    glued = False
    for word in words:
        breaks = bool(word) and not word.strip("=:")
        if joined and (glued or breaks):
            joined[-1] += word
        else:
            joined.append(word)
        glued = breaks
    return joined


class WholeWords(BashComplete):
    """click's completion for bash, with whole arguments."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        *arguments, last = join_words([*words, incomplete])
        return arguments, last


def install() -> None:
    """Use it in place of click's own."""
    add_completion_class(WholeWords)
