"""One connection to a node, from who we are to what is said."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Optional, Union

import websockets
import websockets.exceptions

from .. import signing
from ..errors import DeniedError

ANSWER_SECONDS = 15.0
"""For the answers to auth and register."""
FRAME_BYTES_MAX = 4 << 20

Message = dict[str, Any]


class GoneError(Exception):
    """This connection is of no more use; the next may be."""


LOST = (GoneError, OSError, EOFError, asyncio.TimeoutError, websockets.exceptions.WebSocketException)
"""What a connection ends with."""


@dataclass
class Credentials:
    """By what a worker proves who it is: a token where it has one, else its API key."""

    worker_id: str
    api_key: Optional[str]
    signing_key: Optional[str] = None
    token: Optional[str] = None

    def ask(self) -> Message:
        if self.token is not None:
            return {"type": "auth", "auth_type": "token", "token": self.token}
        return {"type": "auth", "auth_type": "api_key", "api_key": self.api_key or "", "worker_id": self.worker_id}

    def take(self, answer: Message) -> None:
        """Take in the answer: the next token, or a refusal. One of the key is a :class:`labmesh.DeniedError`."""
        if answer.get("type") == "auth_response" and answer.get("status") == "success":
            token = answer.get("token")
            self.token = token if isinstance(token, str) and token else None
            return
        why = str(answer.get("message") or "no reason is given")
        if self.token is not None:
            self.token = None  # it may be too old: the key says who we are
            raise GoneError(f"the token is refused: {why}")
        if answer.get("type") == "auth_response":
            raise DeniedError(f"the node refuses the API key: {why}")
        raise GoneError(why)


class Link:
    """A connection on which the worker is registered."""

    def __init__(self, url: str, connection: Any, who: Credentials) -> None:
        self.url = url
        self.leave = asyncio.Event()
        """Set once it is used, or at its end: it is time for another."""
        self.used = False
        """A task came over it; a node sends no second one."""
        self.over = False
        self._connection = connection
        self._who = who

    @classmethod
    async def open(cls, url: str, who: Credentials, register: Message, tls: Optional[ssl.SSLContext]) -> Link:
        """Connect, prove who we are, and register."""
        address = "ws" + url[len("http") :] + "/ws"
        options: dict[str, Any] = {"ssl": tls} if tls is not None and address.startswith("wss:") else {}
        connection = await websockets.connect(
            address, max_size=FRAME_BYTES_MAX, ping_interval=20, ping_timeout=20, open_timeout=10, close_timeout=2, **options
        )
        link = cls(url, connection, who)
        try:
            await asyncio.wait_for(link._introduce(register), ANSWER_SECONDS)
        except asyncio.TimeoutError:
            await link.close()
            raise GoneError(f"it did not answer for {ANSWER_SECONDS:g} s") from None
        except BaseException:
            await link.close()
            raise
        return link

    async def _introduce(self, register: Message) -> None:
        await self._connection.send(json.dumps(self._who.ask()))
        self._who.take(decode(await self._connection.recv()))
        await self.send(register)
        while True:
            said = decode(await self._connection.recv())
            if said.get("type") == "register_response":
                if said.get("status") == "success":
                    return
                raise GoneError(f"the worker is not registered: {said.get('message')}")
            if said.get("type") == "error":
                raise GoneError(f"the worker is not registered: {said.get('message')}")

    async def send(self, message: Message) -> None:
        if self._who.signing_key is not None:
            message = signing.sign(message, self._who.signing_key)
        await self._connection.send(json.dumps(message, sort_keys=True, allow_nan=False))

    async def messages(self) -> AsyncIterator[Message]:
        """What the node says, to the end. What is signed, and wrongly, is left out."""
        key = self._who.signing_key
        async for frame in self._connection:
            said = decode(frame)
            if key is None or "signature" not in said or signing.verify(said, key):
                yield said

    async def close(self) -> None:
        self.over = True
        self.leave.set()
        try:
            await self._connection.close()
        except LOST:
            pass  # it is gone anyway


def decode(frame: Union[str, bytes]) -> Message:
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        raise GoneError("the node sends what is no JSON: is it a labmesh node?") from None
    if not isinstance(said, dict):
        raise GoneError("the node sends JSON that is no object: is it a labmesh node?")
    return said
