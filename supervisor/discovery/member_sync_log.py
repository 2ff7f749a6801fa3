"""What the log says of member sync: each thing that is wrong once, and when it works again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway.core.log import Log


class MemberSyncLog:
    """Remembers what it has said."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._failures: set[str] = set()
        self.who_was_passed_over: Collection[str] = ()
        """Whose answers were not followed though another member's was, and why."""
        self._left_out: Mapping[str, str] = {}
        self._doubt = ""

    def failed(self, text: str, reasons: Collection[str]) -> None:
        """Say the text, unless each of the reasons was told since the last success.

        Who is asked, and who of them answers first, is chance: that is no news. ``reasons`` are the
        same each time: they have no number of a question, as the text may.
        """
        if not self._failures.issuperset(reasons):
            self._log.warn("member sync failed, endpoints stay as they were", error=text)
        self._failures.update(reasons)

    def passed_over(self, refusals: Collection[str]) -> None:
        """Say whose answer is not followed though another member's is."""
        for reason in refusals:
            if reason not in self.who_was_passed_over:
                self._log.warn("member list passed over", error=reason)
        self.who_was_passed_over = refusals

    def doubted(self, doubt: str) -> None:
        """Say why the adopted cluster is not settled, if that is not "" and is news."""
        if doubt and doubt != self._doubt:
            self._log.warn("member list not settled, another cluster may be adopted", reason=doubt)
        self._doubt = doubt

    def another_adopted(self, cluster_id: int, before: int, *, by_reload: bool) -> None:
        """Say that endpoints are those of another cluster than before, and why."""
        self._log.warn(
            "another cluster adopted, as a reload asks for it"
            if by_reload
            else "another cluster adopted, as more seeds are members of it",
            cluster_id=f"{cluster_id:x}",
            before=f"{before:x}",
        )

    def succeeded(self, left_out: Mapping[str, str], asked: str) -> None:
        """Say who is left out, and that it works again if it did not."""
        for name, reason in left_out.items():
            if self._left_out.get(name) != reason:
                self._log.info("member left out", member=name, reason=reason)
        self._left_out = left_out
        if self._failures:
            self._log.info("member sync works again", asked=asked)
        self._failures.clear()

    def forget(self) -> None:
        """Other targets: what was said of those of before does not count."""
        self._failures.clear()
        self._left_out = {}
        self._doubt = ""
