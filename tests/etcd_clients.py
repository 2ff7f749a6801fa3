"""Clients of etcd for tests, over the JSON gateway, in a network namespace of their choice.

Each client is a thread with one connection, which it opens again when it breaks.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.etcd_history import Event, History, Read
from tests.wires import enter

ATTEMPT_S = 5.0
"""How long one request may take; etcd gives up on a proposal after about as long."""

PATIENCE_S = 60.0
"""How long a request may be tried again before the client calls it failed."""


PAUSE_S = 0.02
"""Between two writes of one client: the test is about faults, not about load."""


class RefusedError(Exception):
    """etcd answered that it did not do it, or does not know whether it did."""


class NobodyListensError(Exception):
    """The gateway refused a connection, which no trouble of etcd explains: never tried again."""


class JsonClient:
    """One connection to ``address`` (host, port); ``user``: name and password."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, user: tuple[str, str]
    ) -> None:
        self._address = address
        self._context = context
        self._user = user
        self._token = ""
        self._connection: http.client.HTTPSConnection | None = None

    def ask(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        """One request, not repeated; raises OSError, HTTPException, RefusedError or
        NobodyListensError."""
        response = self._begin(path, question)
        document: dict[str, Any] = json.loads(response.read())
        return document

    def stream(self, path: str, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The messages of a stream, until it breaks."""
        response = self._begin(path, question)
        while line := response.readline():
            message = json.loads(line)
            if "error" in message:
                raise RefusedError(str(message["error"]))
            yield message["result"]

    def log_in_again(self) -> None:
        self._token = ""

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin(self, path: str, question: dict[str, Any]) -> http.client.HTTPResponse:
        try:
            if not self._token and path != "/v3/auth/authenticate":
                name, password = self._user
                answer = self.ask("/v3/auth/authenticate", {"name": name, "password": password})
                self._token = answer["token"]
            if self._connection is None:
                host, port = self._address
                self._connection = http.client.HTTPSConnection(
                    host, port, timeout=ATTEMPT_S, context=self._context
                )
            headers = {"Authorization": self._token, "Grpc-Metadata-hasleader": "true"}
            if path == "/v3/auth/authenticate":
                headers = {}
            self._connection.request("POST", path, json.dumps(question), headers)
            response = self._connection.getresponse()
            if response.status != 200:
                text = response.read().decode(errors="replace")
                if "auth token" in text:
                    self._token = ""
                raise RefusedError(f"{response.status} {text:.200}")
        except ConnectionRefusedError as error:
            self.close()
            raise NobodyListensError(f"{self._address}: {error}") from None
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return response


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def read_events(message: dict[str, Any]) -> list[Event]:
    """The events of one message of a watch."""
    return [
        Event(
            int(each["kv"]["mod_revision"]),
            decoded(each["kv"]["key"]),
            decoded(each["kv"].get("value", "")),
        )
        for each in message.get("events", ())
    ]


def watch_question(prefix: str, revision: int) -> dict[str, Any]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {
        "create_request": {
            "key": encoded(prefix),
            "range_end": encoded(end),
            "start_revision": str(revision),
            "progress_notify": True,
        }
    }


class Client(threading.Thread):
    """A client in a thread; ``attempts`` and ``errors`` say how it fared, ``failure`` why it ended.

    ``namespace``: where its sockets are.
    """

    def __init__(self, name: str, namespace: str, client: JsonClient, history: History) -> None:
        super().__init__(name=name, daemon=True)
        self._namespace = namespace
        self.client = client
        self.history = history
        self._ended = threading.Event()
        self.errors: list[str] = []
        self.failure = ""

    def run(self) -> None:
        try:
            enter(self._namespace)
            self.work()
        except Exception as error:  # noqa: BLE001 (the test asks for it)
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self.client.close()

    def work(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self._ended.set()

    def insist(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        """Ask until there is an answer; TimeoutError after PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.client.ask(path, question)
            except (OSError, http.client.HTTPException, RefusedError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no answer for {PATIENCE_S:g} s: {error}") from None
                self._ended.wait(0.05)


class Writer(Client):
    """Puts growing numbers under a key of its own, and reads them now and then."""

    def work(self) -> None:
        key, number = f"life/{self.name}", 0
        while not self._ended.is_set():
            number += 1
            answer = self.insist("/v3/kv/put", {"key": encoded(key), "value": encoded(str(number))})
            revision = int(answer["header"]["revision"])
            self.history.acknowledged.append(Event(revision, key, str(number)))
            self._ended.wait(PAUSE_S)
            if number % 10 == 0:
                found = self.insist("/v3/kv/range", {"key": encoded(key)})
                got = int(decoded(found["kvs"][0]["value"]))
                self.history.reads.append(Read(key, number, got))


class Transactor(Client):
    """Increments a number that others increment too, by transactions that compare."""

    def work(self) -> None:
        key = "life/counter"
        while not self._ended.is_set():
            found = self.insist("/v3/kv/range", {"key": encoded(key)}).get("kvs")
            old = int(decoded(found[0]["value"])) if found else 0
            compare = {
                "key": encoded(key),
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": found[0]["mod_revision"] if found else "0",
            }
            put = {"request_put": {"key": encoded(key), "value": encoded(str(old + 1))}}
            try:
                answer = self.client.ask("/v3/kv/txn", {"compare": [compare], "success": [put]})
            except (OSError, http.client.HTTPException, RefusedError) as error:
                self.errors.append(str(error))
                continue  # whether it happened is seen at the next read
            if answer.get("succeeded"):
                revision = int(answer["header"]["revision"])
                self.history.acknowledged.append(Event(revision, key, str(old + 1)))
            self._ended.wait(PAUSE_S)


class Watcher(Client):
    """Watches everything from the first revision on; after a break it goes on where it was."""

    def work(self) -> None:
        seen = self.history.watches.setdefault(self.name, [])
        while not self._ended.is_set():
            following = seen[-1].revision + 1 if seen else 1
            with contextlib.suppress(OSError, http.client.HTTPException, RefusedError, ValueError):
                for message in self.client.stream("/v3/watch", watch_question("life/", following)):
                    if message.get("canceled"):  # a token that is too old is one reason
                        self.client.log_in_again()
                        break
                    seen += read_events(message)
                    if self._ended.is_set():
                        return
            self.client.close()
            self._ended.wait(0.05)
