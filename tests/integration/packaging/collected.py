"""The libraries that are handed out, collected once for all packages that the tests build.

Each package would have pip install them all again, which takes most of the time of a build.
"""

from __future__ import annotations

import contextlib
import fcntl
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.distribution import trees
from deploy.distribution.trees import Tree
from tests.suite_processes import find_shared_directory


@contextlib.contextmanager
def collected_once(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Builds of any process of this run share what the first of them collects."""
    collect, shared = trees.collect, find_shared_directory(factory)

    def collect_once(wheel: Path, version: str) -> Tree:
        path = shared / f"collected-{version}"
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not path.stat().st_size:
                pickle.dump(collect(wheel, version), file)
                file.flush()
            file.seek(0)
            tree: Tree = pickle.load(file)
            return tree

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "collect", collect_once)
        yield
