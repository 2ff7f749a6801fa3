"""Which sources have a value for a flag: command line, environment, config file, package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from gateway.core.records import dataclass
from supervisor.core.config_error import ConfigError, quote
from supervisor.core.effective import EffectiveValue, Source
from supervisor.core.flags import BY_NAME, Flag, FlagKind
from supervisor.core.spelling import nearest


@dataclass(frozen=True, slots=True)
class Given:
    """The texts that one source has for a flag, and what the operator calls that place.

    ``problem``: the value is of a wrong type, which matters if nothing overrides it.
    """

    source: Source
    name: str
    texts: tuple[str, ...]
    problem: ConfigError | None = None


def refuse_unknown(document: Mapping[str, Any], document_name: str) -> None:
    """ConfigError: a key of the config file is no flag's name, or not possible in a file."""
    for key, value in document.items():
        if key == "config-file":
            raise ConfigError(f"{quote(key)} in {document_name}", None, "not possible in the file")
        if key in BY_NAME:
            continue
        if isinstance(value, dict):
            expected = "the file has no tables, expected flags' names at its top level"
            raise ConfigError(f"table {quote(key)} in {document_name}", None, expected)
        expected = "unknown key, expected a flag's name without the dashes in front"
        spelled = key.strip().lstrip("-").replace("_", "-").lower()
        if name := spelled if spelled in BY_NAME else nearest(spelled, BY_NAME):
            expected = f"unknown key, did you mean {name}?"
        raise ConfigError(f"{quote(key)} in {document_name}", None, expected)


def find_given(
    flag: Flag,
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    document_name: str,
) -> Iterator[Given]:
    """Every source that has the flag; the first one wins."""
    if texts := flags.get(flag.name):
        yield Given(Source.FLAG, f"--{flag.name}", tuple(texts))
    if _is_set(text := environ.get(flag.variable), flag):
        yield Given(Source.VARIABLE, flag.variable, (text,))
    if flag.name in document:
        name = f"{flag.name} in {document_name}"
        value, problem = document[flag.name], None
        try:
            texts = _texts_of(flag, name, value)
        except ConfigError as error:
            text = str(value)
            texts, problem = (text.lower() if isinstance(value, bool) else text,), error
        yield Given(Source.FILE, name, texts, problem)
    if _is_set(text := environ.get(flag.default_variable), flag):
        yield Given(Source.PACKAGE, flag.default_variable, (text,))


def _is_set(text: str | None, flag: Flag) -> TypeGuard[str]:
    """Whether a variable counts: an empty one does where it is to be refused."""
    return bool(text) or (text is not None and bool(flag.instead_of_empty))


def describe_given(flag: Flag, given: Sequence[Given], same: Sequence[bool]) -> EffectiveValue:
    """The value in effect as text, beside the texts that it overrides.

    ``same``: which of those mean what is in effect, as ``60s`` means ``1m``. A package's
    default is there to be overridden, so it is not listed when it is.
    """
    if not given:
        return EffectiveValue(flag.name, flag.default, Source.DEFAULT)
    texts = [
        ",".join(each.texts) if flag.kind is FlagKind.MANY else each.texts[-1] for each in given
    ]
    overrides = tuple(
        (each.source, text)
        for each, text, is_same in zip(given[1:], texts[1:], same, strict=True)
        if text != texts[0] and not is_same and each.source is not Source.PACKAGE
    )
    return EffectiveValue(flag.name, texts[0], given[0].source, overrides)


def _texts_of(flag: Flag, source: str, value: Any) -> tuple[str, ...]:
    """A value of the config file as the text it would have as a flag."""
    match value:
        case bool():
            text = str(value).lower()
            if flag.kind is not FlagKind.SWITCH and _is_value(flag, text):
                # A domain called "false" is not what somebody means who turns something off.
                none = '; "" is none' if flag.may_be_empty else ""
                raise ConfigError(source, text, f"expected a text in quotes{none}")
            return (text,)
        case str() | int() | float():
            return (str(value),)
        case list() if flag.kind is FlagKind.MANY:
            for each in value:
                if not isinstance(each, str):
                    raise ConfigError(source, str(each), "expected a list of strings")
            return tuple(value) or ("",)
        case _:
            expected = (
                "a string or a list of strings" if flag.kind is FlagKind.MANY else "one value"
            )
            raise ConfigError(source, str(value), f"expected {expected}")


def _is_value(flag: Flag, text: str) -> bool:
    try:
        flag.read(text)
    except ValueError:
        return False
    return True
