"""What the tests themselves stand on."""

import asyncio
import gc
import socket


async def test_a_server_that_is_closed_while_it_accepts():
    """Nothing is left to the garbage collector, which would warn in whatever test runs then."""
    for turns in range(5):
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            for _ in range(turns):
                await asyncio.sleep(0)
            server.close()
            await asyncio.sleep(0.01)
            gc.collect()
            client.settimeout(5)
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                continue  # nobody had accepted it
