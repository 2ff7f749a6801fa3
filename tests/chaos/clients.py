"""The clients: echo streams that know every byte, and writers to etcd over TLS.

All run on one loop in a thread that lives in the gateways' namespace.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import ssl
import threading
import time
from collections.abc import Callable

from tests.chaos.records import Records, Stream, Write
from tests.wires import enter

PERIOD = 65_521
"""A prime, so that blocks of usual sizes never look alike."""

PATTERN = random.Random(19).randbytes(PERIOD)
STALL_S = 90.0
PUT_S = 20.0

Address = tuple[str, int]

STREAMS, WRITERS = 6, 2
"""Clients at a time."""


def piece(number: int, offset: int, size: int) -> bytes:
    """Bytes ``offset`` and further of a stream; each stream has others."""
    begin = (offset + number * 7919) % PERIOD
    data = PATTERN[begin : begin + size]
    while len(data) < size:
        data += PATTERN[: size - len(data)]
    return data


class Clients:
    """Owns its thread and everything that the clients have open, until :meth:`stop`."""

    def __init__(
        self,
        namespace: str,
        records: Records,
        *,
        echo: Address,
        etcd: Address,
        context: ssl.SSLContext,
        seed: int,
    ) -> None:
        self._namespace = namespace
        self._records = records
        self._echo, self._etcd, self._context = echo, etcd, context
        self._random = random.Random(seed)
        self._numbers = iter(range(1 << 30))
        self._stopping = False
        self.crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let everybody end what it has begun."""
        self._stopping = True
        self._thread.join(STALL_S + PUT_S + 30)
        assert not self._thread.is_alive(), "clients do not end"
        if self.crash is not None:
            raise self.crash

    def _run(self) -> None:
        enter(self._namespace)
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again by stop()
            self.crash = error

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(STREAMS):
                group.create_task(self._stream_on())
            for number in range(WRITERS):
                group.create_task(self._write_on(f"w{number}"))

    # -- streams ------------------------------------------------------------------------------

    async def _stream_on(self) -> None:
        while not self._stopping:
            size = int(10 ** self._random.uniform(0, 5.5))
            stream = Stream(next(self._numbers), time.time(), size)
            await self._stream(stream)
            stream.ended_at = time.time()
            self._records.streams.append(stream)
            await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _stream(self, stream: Stream) -> None:
        try:
            reader, writer = await asyncio.open_connection(*self._echo)
        except ConnectionRefusedError:
            stream.end = "refused"
            return
        except OSError as error:
            stream.end = f"cannot connect: {error}"
            return
        sender = asyncio.create_task(self._send(stream, writer))
        try:
            stream.end = await self._check(stream, reader)
        except TimeoutError:
            stream.end = "stalled"
        except OSError:
            stream.end = "cut"
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        """In blocks of any size with pauses, then the end."""
        offset = 0
        with contextlib.suppress(OSError):
            while offset < stream.wanted:
                size = min(int(10 ** self._random.uniform(0, 4.8)), stream.wanted - offset)
                writer.write(piece(stream.number, offset, size))
                offset += size
                await writer.drain()
                if self._random.random() < 0.3:
                    await asyncio.sleep(self._random.uniform(0.0, 0.5))
            writer.write_eof()

    async def _check(self, stream: Stream, reader: asyncio.StreamReader) -> str:
        while True:
            async with asyncio.timeout(STALL_S):
                data = await reader.read(65_536)
            if not data:
                return "whole" if stream.echoed == stream.wanted else "early"
            if data != piece(stream.number, stream.echoed, len(data)):
                return "wrong"
            stream.echoed += len(data)
            if stream.echoed > stream.wanted:
                return "wrong"

    # -- writers ------------------------------------------------------------------------------

    async def _write_on(self, name: str) -> None:
        for number in range(1 << 30):
            if self._stopping:
                return
            write = Write(f"{name}-{number}", f"value {number}", time.time())
            self._records.writes.append(write)
            await self._write(write)
            write.ended_at = time.time()
            await asyncio.sleep(self._random.uniform(0.05, 0.3))

    async def _write(self, write: Write) -> None:
        """Note how it ended; it is not tried again, the next write is."""
        try:
            async with asyncio.timeout(PUT_S):
                write.revision = await self._put(write)
            write.end = "answered"
        except TimeoutError:  # etcd may be without a leader; recovery has its own deadline
            write.end = "late"
        except ConnectionRefusedError:
            write.end = "refused"
        except (OSError, ValueError):
            write.end = "cut"

    async def _put(self, write: Write) -> int:
        """Its revision: etcd has acknowledged it. 0: it answered that it could not."""
        body = {
            "key": base64.b64encode(write.key.encode()).decode(),
            "value": base64.b64encode(write.value.encode()).decode(),
        }
        reader, writer = await asyncio.open_connection(
            *self._etcd, ssl=self._context, server_hostname="chaos.test"
        )
        try:
            status, answer = await _post(reader, writer, "/v3/kv/put", body)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if status != 200:
            return 0
        return int(answer["header"]["revision"])


async def _post(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    body: dict[str, str],
) -> tuple[int, dict[str, dict[str, str]]]:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: chaos.test\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = (await reader.read(-1)).decode()
    first, _, rest = answer.partition("\r\n\r\n")
    if not rest:
        raise ValueError("the connection ended before the answer")
    status = int(first.split()[1])
    if "chunked" in first.lower():
        rest = rest.partition("\r\n")[2].rpartition("\r\n0\r\n")[0]
    return status, json.loads(rest) if status == 200 else {}


def acked_since(records: Records, at: float) -> Callable[[], bool]:
    """Whether a stream and a write that both began after ``at`` came to a good end."""

    def check() -> bool:
        stream = any(each.began_at >= at and each.end == "whole" for each in records.streams[-100:])
        write = any(each.began_at >= at and each.revision for each in records.writes[-100:])
        return stream and write

    return check
