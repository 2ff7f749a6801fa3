"""The first step of the one file: unpack the program once, then run it. Standard library only.

Native libraries cannot be loaded from an archive, so the program is unpacked into a cache directory
of the user's at its first run, under the id of its content. Later runs only look whether it is
there. The id and the versions are filled in when the file is built.
"""

import os
import sys

TYPE_CHECKING = False  # typing is not imported: a start pays for nothing that it does not use
if TYPE_CHECKING:
    from collections.abc import Mapping
    from zipimport import zipimporter

    __loader__: zipimporter

CONTENT_ID = "@CONTENT_ID@"
VERSIONS = "@VERSIONS@"
"""The versions of Python whose native libraries are in the file, as "3.11 3.12"."""
MACHINE = "@MACHINE@"

CACHE_VARIABLE = "ETCD_GATEWAY_CACHE"
KEPT = 4
"""Unpacked contents that stay: those that were used last, which may still run."""


class RefusedError(Exception):
    """The program cannot be run; the text is the one line that the user sees."""


class DamagedError(Exception):
    """The file was cut or changed on its way; the text says what does not fit."""


def main() -> int:
    """Run the command line out of the cache; the exit code."""
    try:
        check_host("%d.%d" % sys.version_info[:2], sys.implementation.name, os.uname())
        home = find_home(os.environ)
        site = unpack_once(__loader__.archive, home)
    except RefusedError as reason:
        sys.stderr.write("etcd-gateway: %s\n" % reason)
        return 1
    sys.path[0] = site
    from etcd_gateway import main as run  # type: ignore[import-untyped,unused-ignore]

    return int(run())


def check_host(version: str, implementation: str, uname: os.uname_result) -> None:
    """Raise RefusedError where the native libraries of this file cannot be loaded."""
    versions = VERSIONS.split()
    if implementation != "cpython" or version not in versions:
        message = "this file is for CPython %s, this is %s %s; run it as: python%s FILE"
        found = implementation.replace("cpython", "CPython")
        raise RefusedError(message % (", ".join(versions), found, version, versions[-1]))
    if uname.sysname != "Linux" or uname.machine != MACHINE:
        message = "this file is for Linux on %s, this is %s on %s"
        raise RefusedError(message % (MACHINE, uname.sysname, uname.machine))


def find_home(environ: "Mapping[str, str]") -> str:
    """The directory in which contents are unpacked; made if it is not there."""
    if environ.get(CACHE_VARIABLE):
        home = environ[CACHE_VARIABLE]
    elif environ.get("CACHE_DIRECTORY"):  # of a systemd unit with CacheDirectory=
        home = environ["CACHE_DIRECTORY"].split(":")[0]
    elif environ.get("XDG_CACHE_HOME"):
        home = os.path.join(environ["XDG_CACHE_HOME"], "etcd-gateway")
    else:
        home = os.path.join(os.path.expanduser("~"), ".cache", "etcd-gateway")
    if not os.path.isabs(home):
        raise RefusedError(
            'the cache directory "%s" is not absolute; set %s' % (home, CACHE_VARIABLE)
        )
    try:
        os.makedirs(home, 0o700, exist_ok=True)
        found = os.stat(home)
        flags = os.statvfs(home).f_flag
    except OSError as error:
        raise RefusedError(explain(home, error)) from None
    if flags & os.ST_NOEXEC:
        message = 'no native library can be loaded from "%s", it is mounted noexec; set %s'
        raise RefusedError(message % (home, CACHE_VARIABLE))
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        message = 'the cache directory "%s" can be written to by others; set %s'
        raise RefusedError(message % (home, CACHE_VARIABLE))
    return home


def explain(home: str, error: OSError) -> str:
    """What to do where nothing can be unpacked."""
    message = 'cannot unpack into "%s": %s; set %s to a directory that can be written to'
    return message % (home, error.strerror, CACHE_VARIABLE)


def unpack_once(archive: str, home: str) -> str:
    """The directory with the program; unpacked now if no earlier run has done it."""
    site = os.path.join(home, CONTENT_ID + "-cp%d%d" % sys.version_info[:2])
    if not os.path.isdir(site):
        draft = "%s.%d" % (site, os.getpid())
        try:
            unpack(archive, draft)
            publish(draft, site)
            forget_old(home)
        except OSError as error:
            remove(draft)
            raise RefusedError(explain(home, error)) from None
        except DamagedError as error:
            remove(draft)
            raise RefusedError('"%s" is damaged: %s; copy it anew' % (archive, error)) from None
    else:
        note_use(site)
    return site


def unpack(archive: str, draft: str) -> None:
    """Write what this version of Python needs, and have it on the disk before it gets its name.

    Raises OSError, and DamagedError where the archive is not what was built.
    """
    import io
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(archive) as whole:
            for part in ("common.zip", "cp%d%d.zip" % sys.version_info[:2]):
                with zipfile.ZipFile(io.BytesIO(whole.read(part))) as file:
                    file.extractall(draft)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DamagedError(error) from None
    os.sync()


def publish(draft: str, site: str) -> None:
    """Give the draft its name; another run may have been faster, then its work is used."""
    try:
        os.rename(draft, site)
    except OSError:
        if not os.path.isdir(site):
            raise
        remove(draft)


def note_use(site: str) -> None:
    """So that what is run again after a roll back is not taken for the oldest."""
    try:
        os.utime(site)
    except OSError:  # a cache that cannot be written to, in which nothing is removed either
        return


def forget_old(home: str) -> None:
    """Remove contents that were used long ago; a running gateway has few of them behind it."""
    names = [name for name in os.listdir(home) if "-cp" in name and "." not in name]
    paths = sorted((os.path.join(home, name) for name in names), key=os.path.getmtime)
    for path in paths[:-KEPT]:
        remove(path)


def remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
