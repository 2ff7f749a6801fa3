"""The build hook of pyproject.toml that puts the compiled relay into the wheel, if it is asked to.

``HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip install .`` installs it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledRelay(BuildHookInterface[Any]):  # type: ignore[misc,unused-ignore]
    """Compiles into a directory of its own, which is removed when the wheel is complete."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # an edited source would not be what runs
            return
        sys.path.insert(0, self.root)
        from deploy.distribution.compiled import CannotCompileError, compile_into

        self._folder = tempfile.TemporaryDirectory(prefix="etcd-gateway-wheel-")
        folder = Path(self._folder.name)
        try:
            paths = compile_into(folder)
        except CannotCompileError as error:
            raise SystemExit(f"etcd-gateway: {error}") from None
        for path in paths:
            build_data["force_include"][str(path)] = path.relative_to(folder).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, *_: Any) -> None:
        if version != "editable":
            self._folder.cleanup()
