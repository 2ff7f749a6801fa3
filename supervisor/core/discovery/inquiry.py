"""The course of one question: which nameserver is asked next, how, and when to give up.

An inquiry is a generator. It yields a :class:`Try`, the shell sends what the try says and sends the
generator what came of it (:class:`Heard` or :class:`Lost`). It returns the meaning of the reply
that counts, or a :class:`GaveUp`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from gateway.core.records import dataclass
from supervisor.core.discovery.nameservers import Edns, Nameservers
from supervisor.core.discovery.replies import Meaning, ReplyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try: ``attempts`` times over all nameservers, ``timeout_s`` for each try.

    ``lifetime_s`` is the most for all tries together. ``tcp``: never ask over UDP. ``hurried``: the
    tries are so short that silence says nothing about a nameserver.
    """

    timeout_s: float = 5.0
    attempts: int = 2
    lifetime_s: float = 20.0
    tcp: bool = False
    hurried: bool = False

    def within(self, seconds: float, servers: int) -> Patience:
        """The same, but no longer than this; each of so many nameservers has its turn."""
        if seconds >= self.lifetime_s:
            return self
        timeout_s = min(self.timeout_s, seconds / servers)
        hurried = timeout_s < self.timeout_s
        return replace(self, timeout_s=timeout_s, lifetime_s=seconds, hurried=hurried)


@dataclass(frozen=True, slots=True)
class Try:
    """One query to one nameserver, by index; ``edns``: with an OPT record."""

    server: int
    edns: bool
    tcp: bool
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """The nameserver replied at ``at``.

    ``edns``: whether the query that it replied to had an OPT record; None: that of the try. A late
    reply may be one to a query before.
    """

    meaning: Meaning
    at: float
    edns: bool | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply to the query; ``error`` says why.

    ``silent``: the time was over, or the nameserver could not be reached. False: there was a
    connection or a reply, and it was broken.
    """

    error: str
    at: float
    silent: bool = True


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No nameserver gave an answer; ``errors`` are the newest of each, by index.

    ``silent``: none of them said anything at all.
    """

    errors: dict[int, str]
    silent: bool


Course = Generator[Try, Heard | Lost, Meaning | GaveUp]


def inquire(servers: Nameservers, patience: Patience, began_at: float) -> Course:
    """Ask one nameserver after the other until one gives an answer or a definite no."""
    inquiry = _Inquiry(servers, patience, began_at)
    order = servers.order(began_at)
    for _ in range(patience.attempts):
        for server in order:
            if (meaning := (yield from inquiry.ask(server))) is not None:
                return meaning
    for server in order:
        if inquiry.may_have_stumbled(server) and (
            (meaning := (yield from inquiry.ask(server))) is not None
        ):
            return meaning
    return inquiry.give_up()


class _Inquiry:
    """The state of one inquiry."""

    def __init__(self, servers: Nameservers, patience: Patience, began_at: float) -> None:
        self._servers = servers
        self._patience = patience
        self._now = began_at
        self._end_at = began_at + patience.lifetime_s
        self._errors: dict[int, str] = {}
        self._replied: set[int] = set()
        self._ignored_edns: set[int] = set()
        self._asked_plainly: set[int] = set()

    def ask(self, server: int) -> Generator[Try, Heard | Lost, Meaning | None]:
        """Ask one nameserver in every way that may help; None if it gave no answer.

        A nameserver that said it cannot answer is not asked again.
        """
        if server in self._replied:
            return None
        known = self._servers.edns(server, self._now)
        edns = known is not Edns.BROKEN and server not in self._ignored_edns
        tcp = self._patience.tcp
        stumbled = False
        while self._now < self._end_at:
            attempt = self._try(server, edns=edns, tcp=tcp)
            heard = yield attempt
            self._now = heard.at
            if isinstance(heard, Lost):
                self._note_loss(server, heard, edns=edns, waited_s=attempt.timeout_s)
                if tcp and not edns and not self._patience.tcp:
                    self._servers.doubt_edns(server)  # TCP is blocked: the datagram has to be long
                return None
            self._servers.answered(server)
            meaning = heard.meaning
            edns = edns if heard.edns is None else heard.edns
            match meaning.kind:
                case ReplyKind.TRUNCATED if not tcp:
                    tcp = True
                    continue
                case ReplyKind.TRUNCATED:
                    meaning = replace(meaning, kind=ReplyKind.FAILED, text="truncated over TCP")
                case ReplyKind.NO_EDNS if not stumbled:
                    edns, stumbled = False, True
                    continue
                case ReplyKind.NO_EDNS:  # once more: of an earlier query, or of none of ours
                    meaning = replace(meaning, kind=ReplyKind.FAILED)
                case ReplyKind.FAILED if self._may_be_edns(meaning, edns, known):
                    edns, stumbled = False, True
                    continue
            return self._conclude(server, meaning, edns=edns, stumbled=stumbled)
        return None

    def may_have_stumbled(self, server: int) -> bool:
        """Whether a silent nameserver may have been silent because of the OPT record alone.

        One that has understood EDNS before is silent for another reason.
        """
        return (
            server in self._ignored_edns
            and server not in self._asked_plainly
            and self._servers.edns(server, self._now) is Edns.UNKNOWN
        )

    def give_up(self) -> GaveUp:
        return GaveUp(self._errors, silent=not self._replied)

    def _try(self, server: int, *, edns: bool, tcp: bool) -> Try:
        if not edns:
            self._asked_plainly.add(server)
        left_s = self._end_at - self._now
        return Try(server, edns, tcp, min(self._patience.timeout_s, left_s))

    def _note_loss(self, server: int, loss: Lost, *, edns: bool, waited_s: float) -> None:
        self._errors[server] = loss.error
        if not loss.silent:
            self._replied.add(server)
            return
        if edns:
            self._ignored_edns.add(server)
        if waited_s == self._patience.timeout_s and not self._patience.hurried:
            self._servers.silent(server, self._now)  # it was not cut short in any way

    def _may_be_edns(self, meaning: Meaning, edns: bool, known: Edns) -> bool:
        """SERVFAIL is what some servers say to an OPT record; most mean the name by it."""
        return edns and meaning.text == "SERVFAIL" and known is Edns.UNKNOWN

    def _conclude(
        self, server: int, meaning: Meaning, *, edns: bool, stumbled: bool
    ) -> Meaning | None:
        """The meaning if it is an answer or a definite no; what it tells about the nameserver."""
        if meaning.kind is ReplyKind.FAILED:
            self._errors[server] = meaning.text
            self._replied.add(server)
            return None
        if edns:
            self._servers.edns_worked(server, self._now)
        elif stumbled or server in self._ignored_edns:
            self._servers.edns_failed(server, self._now, silently=not stumbled)
        return meaning
