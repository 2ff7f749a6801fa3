"""An endpoint that echoes: ``python -m tests.chaos.backend HOST PORT``."""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def main(host: str, port: int) -> None:
    server = await asyncio.start_server(serve, host, port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
