"""The relay as native code: its modules, as they stand in ``gateway``, compiled with Cython.

The Python sources stay the only ones of the relay. What is beside this file declares types for
them, one ``.pxd`` for each module, and ``calls.h`` makes their system calls without ``os`` in
between (Cython calls this augmenting: https://cython.readthedocs.io, "Pure Python mode").
``tcp_calls.c`` stands in for a module that is nothing but system calls.
:mod:`deploy.distribution.compiled.hook` puts the native modules into a wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

RELAY = (
    "gateway/poller",
    "gateway/sessions/leg",
    "gateway/sessions/pipes",
    "gateway/sessions/relay",
)
"""What every byte passes; each has a ``.pxd`` of its last name here."""

IN_C = "gateway/tcp_calls"
"""Nothing but system calls: written in C, in a ``.c`` of its last name here."""

MODULES = (*RELAY, IN_C)

OPTIONS = ("-O2", "-fno-semantic-interposition")
DIRECTIVES = {"language_level": "3", "annotation_typing": False, "nonecheck": True}
"""Annotations are for people and mypy; the ``.pxd`` files say what is an integer of C.

A leg without a peer is an AttributeError, as in Python, and not a crash of the worker.
"""

CALLS = re.compile(r"^from gateway\.calls cimport (.+)$", re.MULTILINE)


class CannotCompileError(Exception):
    """The text says what is missing, or what the compiler said."""


def find_missing() -> str:
    """What this host lacks: a C compiler, or the header of Python; "" if both are there."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"a C compiler ({compiler})"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.exists() else f"the header of Python ({header})"


def compile_into(folder: Path, options: Sequence[str] = OPTIONS) -> list[Path]:
    """Compile the modules; the paths of the native ones below ``folder``.

    ``options``: of the compiler, after those with which Python was built.
    Needs Cython, setuptools and a C compiler; CannotCompileError says what is not there.
    """
    try:
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError
        from setuptools import Distribution, Extension
        from setuptools.errors import BaseError
    except ImportError as error:
        raise CannotCompileError(f"{error.name} is needed to compile the relay") from None
    if missing := find_missing():
        raise CannotCompileError(f"{missing} is needed to compile the relay")
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-compiled-") as name:
        work = Path(name)
        _copy_sources(work)
        before = Path.cwd()
        os.chdir(work)  # so that the result does not depend on where it was made
        try:
            extensions = [
                Extension(
                    module.replace("/", "."),
                    [f"{module}.c" if module == IN_C else f"{module}.py"],
                    include_dirs=["gateway"],
                    extra_compile_args=[*options],
                    extra_link_args=["-s"],
                )
                for module in MODULES
            ]
            built = cythonize(  # type: ignore[no-untyped-call,unused-ignore]
                extensions, quiet=True, compiler_directives=DIRECTIVES
            )
            command = Distribution({"ext_modules": built}).get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(folder), "build"
            command.ensure_finalized()
            command.run()
        except (CompileError, BaseError) as error:
            raise CannotCompileError(f"the relay could not be compiled: {error}") from error
        finally:
            os.chdir(before)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [folder / f"{module}{suffix}" for module in MODULES]


def _copy_sources(work: Path) -> None:
    shutil.copytree(
        ROOT / "gateway", work / "gateway", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    for name in ("calls.h", "calls.pxd"):
        shutil.copy(HERE / name, work / "gateway")
    shutil.copy(HERE / f"{Path(IN_C).name}.c", work / f"{IN_C}.c")
    for module in RELAY:
        types = (HERE / f"{Path(module).name}.pxd").read_text()
        (work / f"{module}.pxd").write_text(types)
        source = work / f"{module}.py"
        source.write_text(_without_calls(source.read_text(), types, module))


def _without_calls(source: str, types: str, module: str) -> str:
    """The source, empty where it names the calls that its types declare.

    The line itself stays, because tracebacks name lines of the source that was handed out.
    """
    for names in CALLS.findall(types):
        line = re.compile(rf"^(from \w+ import {names}|{names} = .+)$", re.MULTILINE)
        source, count = line.subn("", source)
        if count != 1:
            raise CannotCompileError(f"{module}.py has {count} lines that define {names}, not one")
    return source
