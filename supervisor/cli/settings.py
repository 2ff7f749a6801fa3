"""Loading the configuration: reads the config file, and checks the files that flags name.

Each reload loads it again, with the command line of the start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from supervisor.core.config import Config, build, find_config_file
from supervisor.core.config_error import ConfigError
from supervisor.core.config_sources import find_given
from supervisor.core.flags import BY_NAME
from supervisor.core.spelling import WITHOUT_QUOTES, is_quoted

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The most that is read of a file: a bundle of all public CAs has 1 MB, /dev/zero has no end."""

MAX_LINES = 100
"""The longest list that is looked for in a file that is no TOML."""

_ENDLESS_KEY = r"(?<![^\s.,;=[{])(?:[^\s.,;=[{]++[ \t]*+\.[ \t]*+){200}"
"""A key that tomllib would read for minutes: its time grows with the square of the parts, and a
reload must not stop the master. No DNS name has so many, and no flag has a dot in its name."""

_PEM_FLAGS = ("trusted-ca-file", "health-cert-file", "health-key-file")


def load(
    flags: Mapping[str, Sequence[str]],
    only: Collection[str] = BY_NAME.keys(),
    *,
    strict: bool = True,
) -> Config:
    """The configuration from command line, environment and config file; raises ConfigError.

    ``flags`` holds the texts of the flags that were given. ``only`` names the flags that matter to
    the command; the values of the others are not read. ``strict``: as in ``core.config.build``;
    else a file that is no TOML has the keys of ``only`` whose own lines are TOML.
    """
    path = find_config_file(flags, os.environ) if "config-file" in only else ""
    document: Mapping[str, Any] = {}
    if path:
        document = _read_for(path, _source_of("config-file", flags, document, ""), only, strict)
    config = build(flags, os.environ, document, document_name=path, only=only, strict=strict)
    for name in _PEM_FLAGS:
        if name in only and (pem_path := getattr(config, BY_NAME[name].field)):
            source = _source_of(name, flags, document, path)
            _check_pem(name, pem_path, source, config)
    return config


def _read_for(path: str, source: str, only: Collection[str], strict: bool) -> dict[str, Any]:
    try:
        return read_document(path, source)
    except ConfigError:
        if strict:
            raise
        lines = _read_file(path, source).decode(errors="replace").splitlines()
        found = [_find_key(lines, name) for name in only]
        if not any(found):
            raise
    return {key: value for each in found for key, value in each.items()}


def _find_key(lines: Sequence[str], name: str) -> dict[str, Any]:
    """The key with its value, which may be a list of several lines; empty if it is not found."""
    import tomllib

    for first, line in enumerate(lines):
        if line.partition("=")[0].strip() != name:
            continue
        for behind in range(first + 1, min(first + MAX_LINES, len(lines)) + 1):
            with contextlib.suppress(ValueError, RecursionError):
                return tomllib.loads("\n".join(lines[first:behind]))
    return {}


def read_document(path: str, source: str) -> dict[str, Any]:
    """The config file's keys and values; errors name ``source``, or the line of the file."""
    import tomllib

    data = _read_file(path, source)
    try:
        text = data.decode("utf-8-sig")  # some editors begin with a byte-order mark
        if re.search(_ENDLESS_KEY, text):
            raise ConfigError(source, path, "expected no key of hundreds of parts")
        document = tomllib.loads(text)
        str(document)  # an error shows its value, and a hexadecimal number may be too long for that
        return document
    except UnicodeDecodeError as error:
        raise ConfigError(source, path, f"expected UTF-8, not so at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, path, f"expected TOML: {error}") from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise ConfigError(source, path, f"expected numbers of at most {most} digits") from None
    except RecursionError:
        expected = "expected lists and tables that are nested less deeply"
        raise ConfigError(source, path, expected) from None


def _read_file(path: str, source: str) -> bytes:
    """The bytes of a regular file; never waits for a pipe or a device."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(source, path, "expected a regular file")
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = WITHOUT_QUOTES if is_quoted(path) else _why_unreadable(error)
        raise ConfigError(source, path, why) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(source, path, f"expected at most {MAX_FILE_BYTES} bytes")
    return data


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "expected the path of a file"
    if error.errno == errno.EISDIR:
        return "expected a file, it is a directory"
    return f"expected a readable file: {os.strerror(error.errno or 0)}"


def _check_pem(name: str, path: str, source: str, config: Config) -> None:
    """Refuse now what the first TLS handshake would refuse later."""
    _read_file(path, source)
    from supervisor.system import (
        tls_contexts as tls,  # ssl takes 20 ms to import: not without files
    )

    try:
        if name == "trusted-ca-file":
            tls.load(tls.TlsFiles(ca_file=path))
        elif name == "health-key-file":
            tls.load_certificate(tls.unverified(), config.health_cert_file, path)
    except OSError:
        expected = (
            "expected certificates in PEM"
            if name == "trusted-ca-file"
            else f"expected an unencrypted PEM key of the certificate in {config.health_cert_file}"
        )
        raise ConfigError(source, path, expected) from None


def _source_of(
    name: str,
    flags: Mapping[str, Sequence[str]],
    document: Mapping[str, Any],
    document_name: str,
) -> str:
    """What the operator calls the place that a flag's value came from; some source must have it."""
    return next(find_given(BY_NAME[name], flags, os.environ, document, document_name)).name
