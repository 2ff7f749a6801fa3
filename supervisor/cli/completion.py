"""Completion in bash, zsh and fish, for values after an equals sign too.

click completes a value that is an argument of its own. In ``--balance=l`` each shell sees another
word to complete, and replaces another part of the line:

- bash cuts words at ``=`` and ``:`` as well (COMP_WORDBREAKS) and replaces the last piece.
- zsh and fish replace the whole word, so each candidate needs the part in front of ``=``.
  For paths, zsh is told to leave that part alone, because it finds them itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

FISH_SCRIPT = """\
function %(complete_func)s;
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -t) %(prog_name)s);

    for completion in $response;
        set -l parts (string split -m 1 "," -- $completion);

        if test $parts[1] = "file";
            set -l flag (string match -r -- '^--[^=]+=' $parts[2]);
            set -l path (string replace -r -- '^--[^=]+=' '' $parts[2]);
            for found in (__fish_complete_path $path);
                echo $flag$found;
            end;
        else;
            echo $parts[2];
        end;
    end;
end;

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)";
"""
"""click's own splits descriptions at each comma, and completes paths without the flag."""

ZSH_PATHS = "            _path_files -f\n"
"""Where click's script for zsh completes paths."""


class WholeWords(BashComplete):
    """click's completion for bash, with whole arguments."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        *arguments, last = join_words([*words, incomplete])
        return arguments, last


class _KeepsFlag(ShellComplete):
    """For the shells that replace the whole word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        return keep_flag(super().get_completions(args, incomplete), incomplete)


class ZshCandidates(_KeepsFlag, ZshComplete):
    """click's completion for zsh, with ``--flag=`` in front of each value."""

    source_template = ZshComplete.source_template.replace(
        ZSH_PATHS, f"            [[ $words[CURRENT] == --*=* ]] && compset -P '*='\n{ZSH_PATHS}"
    )


class FishCandidates(_KeepsFlag, FishComplete):
    """click's completion for fish, with ``--flag=`` in front of each value."""

    source_template = FISH_SCRIPT


def keep_flag(items: list[CompletionItem[str]], incomplete: str) -> list[CompletionItem[str]]:
    """The candidates for a word that begins with ``--flag=``, with that in front."""
    flag, equals, _ = incomplete.partition("=")
    if equals and flag.startswith("--"):
        for item in items:
            item.value = f"{flag}={item.value}"
    return items


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


def install() -> None:
    """Use these classes in place of click's own."""
    for kind in (WholeWords, ZshCandidates, FishCandidates):
        add_completion_class(kind)
