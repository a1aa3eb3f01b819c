"""A node's WebSocket as a test drives it."""

import asyncio
import json
from typing import Any, Callable, Optional

import websockets

TOKEN = "token-1"


class Connection:
    """One connection of a worker, seen from the node."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.auth: dict[str, Any] = {}
        self.inbox: "asyncio.Queue[Optional[dict[str, Any]]]" = asyncio.Queue()

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def expect(self, kind: str, where: Callable[[dict[str, Any]], bool] = lambda _: True, seconds: float = 15.0) -> dict[str, Any]:
        """The next message of a type; what comes before it is left aside."""

        async def look() -> dict[str, Any]:
            while True:
                said = await self.inbox.get()
                if said is None:
                    raise AssertionError(f"the worker left before its {kind}")
                if said.get("type") == kind and where(said):
                    return said

        return await asyncio.wait_for(look(), seconds)

    async def gone(self) -> None:
        """Wait until the worker has closed the connection."""
        while await asyncio.wait_for(self.inbox.get(), 15.0) is not None:
            pass

    async def execute(self, task_id: str, task_type: str, config: Any, **more: Any) -> None:
        await self.send(type="execute_task", task_id=task_id, task_type=task_type, config=config, **more)

    async def close(self) -> None:
        await self.socket.close()


class FakeMesh:
    """A node that authenticates and registers workers, and leaves the rest to the test."""

    def __init__(self, key: str = "key") -> None:
        self.key = key
        self.tokens = {TOKEN}
        self.connections: "asyncio.Queue[Connection]" = asyncio.Queue()
        self.auths: list[dict[str, Any]] = []
        self.registers: list[dict[str, Any]] = []
        self.results: "asyncio.Queue[tuple[Connection, dict[str, Any]]]" = asyncio.Queue()
        self.silent = False
        self._server: Any = None
        self.url = ""

    async def start(self, port: int = 0) -> "FakeMesh":
        self._server = await websockets.serve(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def next(self) -> Connection:
        """The next connection on which a worker has registered."""
        return await asyncio.wait_for(self.connections.get(), 15.0)

    async def result(self, task_id: str, ack: bool = True) -> dict[str, Any]:
        """The next result, over whichever connection it comes; it must be that of a task."""
        connection, said = await asyncio.wait_for(self.results.get(), 15.0)
        if said["task_id"] != task_id:
            raise AssertionError(f"the result of {said['task_id']} came in place of that of {task_id}")
        if ack:
            await connection.send(type="task_result_response", task_id=task_id, received="now")
        return said

    async def _serve(self, socket: Any, *_: Any) -> None:
        connection = Connection(socket)
        try:
            if await self._introduce(connection):
                async for frame in socket:
                    said = json.loads(frame)
                    if said["type"] == "heartbeat":
                        await connection.send(type="heartbeat_response", timestamp="now")
                    if said["type"] == "task_result":
                        self.results.put_nowait((connection, said))
                    else:
                        connection.inbox.put_nowait(said)
        except websockets.exceptions.ConnectionClosed:
            pass
        finally:
            connection.inbox.put_nowait(None)

    async def _introduce(self, connection: Connection) -> bool:
        auth = json.loads(await connection.socket.recv())
        self.auths.append(auth)
        if self.silent:
            await connection.socket.wait_closed()
            return False
        good = auth.get("api_key") == self.key if auth["auth_type"] == "api_key" else auth["token"] in self.tokens
        if not good:
            await connection.send(type="auth_response", status="error", message="Invalid " + ("API key" if "api_key" in auth else "token"))
            return False
        connection.auth = auth
        await connection.send(type="auth_response", status="success", token=TOKEN, worker_id="w")
        register = json.loads(await connection.socket.recv())
        self.registers.append(register)
        await connection.send(type="register_response", status="success", worker_id=register["worker_id"])
        self.connections.put_nowait(connection)
        return True
