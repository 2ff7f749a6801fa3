"""The discovery loop: the first resolution, then one for every refresh, reload and emergency.

One task makes one resolution at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from gateway.core.address import Address
from gateway.core.log import Log
from supervisor.core.admin.views import DiscoveryView
from supervisor.core.backoff import Draw
from supervisor.core.config import Config
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.questions import Outcome, Question
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.schedule import Due, next_due
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.targets import describe_targets, describe_tls_check
from supervisor.discovery.means import Means
from supervisor.discovery.member_sync import MemberSync, Surroundings
from supervisor.discovery.publication import OnFound, Publication, source_of
from supervisor.discovery.requests import ReloadFailedError, Request, Requests
from supervisor.discovery.targets import BadTargetError, Targets
from supervisor.system.shared_tls import SharedTls

AFTER_ERROR_S = 5.0
"""Wait after an error that nobody expected."""


class NoEndpointsError(Exception):
    """There is no endpoint, and trying again is pointless; the text says why (exit code 69)."""


ActiveNames = Callable[[], Collection[str]]


class DiscoveryLoop:
    """Calls ``on_found`` with the endpoints whenever they changed, and logs each change.

    ``active_names``: the endpoints that are active now, which may be asked for the member list.
    ``on_list`` is called when another member list is followed and no endpoint changed.
    Owns one task, from ``start`` to ``close``.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        on_found: OnFound,
        *,
        active_names: ActiveNames = tuple,
        on_list: Callable[[], None] = lambda: None,
        files: Files | None = None,
        draw: Draw = random.randrange,
        wall: Callable[[], float] = time.time,
        shared_tls: SharedTls | None = None,
    ) -> None:
        self._config = config
        self._log = log
        shared_tls = shared_tls or SharedTls(log)
        self.means = Means(log=log, files=files or Files(), draw=draw, shared_tls=shared_tls)
        self._listen: tuple[Address, ...] = ()
        self._targets: Targets | None = None
        self._tried: Targets | None = None
        """Those of a reload, while they are resolved."""
        self._going = asyncio.Event()
        self._going.set()
        self._requests = Requests()
        self._asked_all_at = -math.inf
        self._any_active = True
        self._publication = Publication(log, on_found=on_found, on_list=on_list, wall=wall)
        self._member_sync = MemberSync(
            config,
            log,
            Surroundings(
                resolution=lambda: self._publication.last,
                active=active_names,
                listen=lambda: self._listen,
                look_up=self._look_up,
                on_change=self._requests.resolve_again,
            ),
            draw=draw,
            wall=wall,
            contexts=shared_tls.contexts,
        )
        self._former: tuple[Discovered, ...] | None = None
        """The endpoints of the image before us; None if there was none."""
        self._former_check = describe_tls_check(config)
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def view(self) -> DiscoveryView:
        due_at = self._due_at()
        made_known = self._publication
        synced = self._member_sync.view
        now = asyncio.get_running_loop().time()
        return DiscoveryView(
            srv=self._config.discovery_srv or None,
            last_success_at=made_known.last_success_at,
            last_error=made_known.last.error or None,
            next_refresh_s=None if due_at is None else max(due_at - now, 0.0),
            refused=made_known.last.left_out,
            results=made_known.tally.by_result(),
            by_source=made_known.tally.by_source(
                source_of(self._config), synced.results if synced else None
            ),
            member_sync=synced,
        )

    @property
    def adopted(self) -> AdoptedList | None:
        """The member list of the cluster that endpoints follow, None if they follow none."""
        adopted, targets = self._member_sync.adopted, self._targets
        return targets.tell(adopted) if adopted and targets else adopted

    @property
    def searched(self) -> dict[str, str]:
        """By host: the name of the search list whose addresses are in use."""
        return self.means.search_memory.export()

    @property
    def tls_check(self) -> str:
        """The TLS check that the endpoints in use have passed, see ``describe_tls_check``."""
        return describe_tls_check(self._config) if self._started.done() else self._former_check

    @property
    def _passed_our_check(self) -> bool:
        """Whether the endpoints of the image before us passed the check that we ask for."""
        return self._former_check == describe_tls_check(self._config)

    def remember(
        self,
        view: DiscoveryView,
        adopted: AdoptedList | None = None,
        found: tuple[Discovered, ...] = (),
        *,
        tls_check: str | None = None,
        searched: Mapping[str, str] | None = None,
    ) -> None:
        """Continue the counts of the image before us, whose endpoints stay until DNS answers.

        ``tls_check``: see :attr:`tls_check`; None if the image before us did not say.
        ``searched``: see :attr:`searched`.
        """
        self.means.search_memory.remember(searched or {})
        self._former = found
        if tls_check is not None:
            self._former_check = tls_check
        self._member_sync.remember(adopted, view.member_sync)
        self._publication.remember(view, adopted, found, source=source_of(self._config))

    def begin_with(self, config: Config) -> None:
        """Use another configuration; only before :meth:`start`."""
        self._config = config
        self._former_check = describe_tls_check(config)
        self._member_sync.begin_with(config)

    async def start(self, listen: tuple[Address, ...]) -> None:
        """Resolve until endpoints are found and published; a task of the loop then goes on.

        ``listen``: our own addresses as literals, which no endpoint may have.
        Raises NoEndpointsError if nothing can be found, and BadTargetError for what can never work.
        Transient failures are retried with backoff for as long as it takes. With endpoints of an
        earlier image to go on with, definite failures are retried too.
        May be called again after an error.
        """
        self._started = asyncio.get_running_loop().create_future()
        self._listen = listen
        self._targets = self._make_targets(self._config)
        self._targets.remember(
            self._former or (), self._member_sync.adopted, same_check=self._passed_our_check
        )
        self._task = asyncio.create_task(self._run(), name="discovery loop")
        try:
            await self._started
        except BaseException:
            await self._end()
            raise

    def refresh(self) -> None:
        """Ask for a resolution of everything now."""
        self._requests.refresh()

    @property
    def is_searching(self) -> bool:
        """Whether a start looks for its first endpoints; a reload may give it other targets."""
        return self._task is not None and not self._started.done()

    def check_tls_again(self) -> None:
        """The files of the TLS check changed."""
        if self._targets is not None:
            self._targets.check_again()
            self._requests.look_again()

    def set_any_active(self, any_active: bool) -> None:
        """Whether any endpoint is active; while none is, DNS is asked again and again."""
        if self._any_active != any_active:
            self._any_active = any_active
            self._member_sync.set_any_active(any_active)
            self._requests.look_again()

    async def reload(self, config: Config, on_taken: Callable[[], None] = lambda: None) -> None:
        """Resolve the targets of a new configuration now, and go on with them.

        Returns when the resolution is over. ``on_taken()`` is called if they can be used, before
        their endpoints are made known: whoever hears of these is to know the configuration.

        Raises ReloadFailedError if the new targets yield no endpoint; then the old ones stay.
        A DNS failure that leaves the last good endpoints in use is no failed reload. A start that
        has found nothing yet goes on with the new targets, unless they can never yield any.
        """
        await self._requests.try_candidate(config, on_taken)

    async def close(self) -> None:
        """End the task. TLS checks under way end in order; waiting reloads are cancelled."""
        await self._end()
        self._requests.cancel()

    async def _end(self) -> None:
        """End the task; a reload that waits is for the next :meth:`start`."""
        parts = [self._member_sync.close()]
        if self._task is not None:
            parts += [each.close() for each in self._all_targets]
        await asyncio.gather(*parts)  # together, for all wait for what is under way
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def pause(self) -> None:
        """Ask no member and check no TLS until :meth:`resume`; what is under way may end in order.

        An upgrade closes the sockets of the old image, and etcd logs each handshake that it cuts.
        """
        self._going.clear()
        parts = [self._member_sync.pause(), *(each.pause() for each in self._all_targets)]
        await asyncio.gather(*parts)

    def resume(self) -> None:
        """Go on with what is due."""
        self._going.set()
        for each in self._all_targets:
            each.resume()
        self._member_sync.resume()

    @property
    def _all_targets(self) -> list[Targets]:
        return [each for each in (self._targets, self._tried) if each is not None]

    async def _run(self) -> None:
        while True:
            await self._going.wait()
            try:
                result = await self._serve_requests()
            except BadTargetError as error:  # only the first resolution raises it
                self._started.set_exception(error)
                return
            except Exception as error:  # noqa: BLE001 (the boundary of this task)
                self._log.error("discovery failed", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(AFTER_ERROR_S)
                continue
            if not self._started.done():
                if result.definite and self._former is None:
                    self._started.set_exception(NoEndpointsError(result.why_nothing(self._config)))
                    return
                staying = self._publication.any_in_use
                self._publication.warn_of_waiting(result.error, staying=staying)
            await self._requests.wait(self._due_at)

    def _due_at(self) -> float | None:
        """When the next resolution is due; None if none ever is."""
        due_at = self._next_due().at
        return due_at if due_at < math.inf else None

    def _next_due(self) -> Due:
        planned_at, urgent = math.inf, False
        if self._targets is not None:
            planned_at = self._targets.next_at()
            found_before = self._started.done() or self._former is not None
            urgent = not self._any_active and self._targets.may_refresh and found_before
        return next_due(planned_at, asked_all_at=self._asked_all_at, urgent=urgent)

    async def _serve_requests(self) -> Resolution:
        """Make one resolution for all requests that wait now, and tell each how it ended."""
        now = asyncio.get_running_loop().time
        due = self._next_due()
        request = self._requests.take()
        force = request.everything or (due.everything and due.at <= now())
        try:
            result = await self._resolve(request, force=force)
        except asyncio.CancelledError:
            request.cancel()
            raise
        except Exception as error:
            request.fail(str(error))
            if request.waiters and isinstance(error, BadTargetError | ReloadFailedError):
                return self._publication.last
            raise
        finally:
            self._tried = None
            if force:
                self._asked_all_at = now()
        request.succeed()
        return result

    async def _resolve(self, request: Request, *, force: bool) -> Resolution:
        """Resolve the current targets, or the candidate's, which replace them if usable."""
        targets, candidate = self._targets, request.candidate
        if candidate is not None:
            targets = self._tried = self._make_targets(candidate, before=self._targets)
        assert targets is not None  # noqa: S101 (for the type checker)
        adopted = self._member_sync.adopted
        same_targets = candidate is None or describe_targets(candidate) == describe_targets(
            self._config
        )
        if not same_targets or (candidate is not None and not candidate.member_sync_s):
            adopted = None
        early = None if candidate else partial(self._publish, adopted=adopted)
        result = await targets.resolve(
            force=force, recheck=request.everything, publish=early, adopted=adopted
        )
        # Of thousands of endpoints, what follows takes a tenth of a second, as that before did.
        await asyncio.sleep(0)
        if result.names_itself and (candidate is not None or not self._started.done()):
            raise BadTargetError(result.names_itself)
        if candidate is not None:
            waits = not self._started.done() and self._former is None
            if not result.endpoints and (result.definite or not waits):
                if self._targets is not None and self._targets.learn_from(targets):
                    self._requests.resolve_again()
                raise ReloadFailedError(result.why_nothing(candidate))
            await self._member_sync.reconfigure(
                candidate, same_targets=same_targets, ask=bool(result.endpoints) or not waits
            )
            # From here on nothing waits: nobody sees the one without the other.
            self._config, self._targets = candidate, targets
            request.on_taken()
        self.means.search_memory.retain(targets.searched)
        self._publish(result, adopted=adopted)
        return result

    def _publish(self, result: Resolution, *, adopted: AdoptedList | None) -> None:
        """Make a result known, also to a start that waits for the first endpoints.

        What the image before us had stays until there is something else, or until it fails the
        TLS check that it has passed before. After a reload it is the same.
        """
        first = not self._started.done()
        refused = bool(result.refused) and result.definite and self._passed_our_check
        keep = first and not result.endpoints and not refused
        if result.endpoints:  # who is told of them asks which check they have passed
            self._former_check = describe_tls_check(self._config)
        changed = self._publication.publish(
            self._config, result, adopted=adopted, first=first, keep=keep
        )
        if changed and result.endpoints and first:
            self._started.set_result(None)
            self._member_sync.start()

    async def _look_up(self, question: Question) -> Outcome:
        assert self._targets is not None  # noqa: S101 (for the type checker)
        return await self._targets.look_up(question)

    def _make_targets(self, config: Config, before: Targets | None = None) -> Targets:
        return Targets(config, self._listen, self.means, before=before)
