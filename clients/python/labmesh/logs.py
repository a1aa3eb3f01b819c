"""The output of a task: the frames in which it comes, and lines made of them."""

from __future__ import annotations

import codecs
import http.client
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Literal, Optional

from .errors import DeniedError, ExhaustedError, InternalError, LabmeshError, NotFoundError, UnavailableError
from .transport import RETRY_WAIT_MIN, Transport

Stream = Literal["stdout", "stderr"]

SILENCE_SECONDS = 60.0
"""Without a sign of life for so long a followed output counts as lost; the node gives one every 15 s."""

_LINE_BYTES_MAX = 64
_DATA_BYTES_MAX = 64 << 10
_WAIT_MAX = 1.0


@dataclass(frozen=True)
class LogFrame:
    """A piece of one stream of a task's output, or word of what is not there."""

    kind: str
    """``data``: bytes that were printed. ``gap``: ``missing`` bytes are not to be had.
    ``begin``: the output of another attempt begins. ``note``: something to tell a person, in ``data``."""
    attempt: int
    offset: int
    """How many bytes of the attempt's stream come before it."""
    data: bytes = b""
    missing: int = 0

    @property
    def after(self) -> tuple[int, int]:
        """The attempt and the offset at which to go on."""
        return self.attempt, self.offset + (len(self.data) if self.kind == "data" else self.missing)

    @property
    def text(self) -> bytes:
        """How it stands in output that is read as text."""
        if self.kind == "data":
            return self.data
        if self.kind == "gap":
            return b"\n[labmesh: %d bytes left out here]\n" % self.missing
        if self.kind == "begin":
            return b"\n[labmesh: attempt %d begins here]\n" % self.attempt
        return b"\n[labmesh: " + self.data + b"]\n"


def read_frame(stream: IO[bytes]) -> LogFrame:
    """The next frame. At the end of the stream it raises :class:`EOFError`."""
    line = stream.readline(_LINE_BYTES_MAX + 1)
    words = line.split()
    if not line:
        raise EOFError
    try:
        if len(words) != 4 or not line.endswith(b"\n") or not all(w.isdigit() for w in words[1:]):
            raise ValueError
        kind, attempt, offset, n = words[0].decode("ascii"), int(words[1]), int(words[2]), int(words[3])
        if kind in ("data", "note") and n <= _DATA_BYTES_MAX:
            data = stream.read(n)
            if len(data) < n:
                raise EOFError
            return LogFrame(kind, attempt, offset, data)
        if kind == "gap":
            return LogFrame(kind, attempt, offset, missing=n)
        if kind in ("begin", "still", "end") and n == 0:
            return LogFrame(kind, attempt, offset)
    except ValueError:
        pass
    raise InternalError(f"the output comes in no frames that this version knows: {line[:40]!r}")


class LogReader:
    """Reads one stream of a task's output over as many connections as it takes.

    When one is lost, it goes on at the byte where it was, at another node if
    several are known.
    """

    def __init__(
        self, transport: Transport, path: str, stream: Stream, *, follow: bool, attempt: Optional[int]
    ) -> None:
        self._transport = transport
        self._path = path
        self._query = {"stream": stream, "frames": "1"}
        if follow:
            self._query["follow"] = "1"
        if attempt is not None:
            self._query["attempt"] = str(attempt)
        self._follow = follow
        self._opened = False
        self._lost = time.monotonic()
        self._tries = 0

    def __iter__(self) -> Iterator[LogFrame]:
        while True:
            with self._open() as stream:
                try:
                    while True:
                        frame = read_frame(stream)
                        self._lost, self._tries = time.monotonic(), 0
                        if frame.kind == "end":
                            return
                        if frame.kind == "still":
                            continue
                        self._query["after"] = "%d-%d" % frame.after
                        yield frame
                except (OSError, EOFError, http.client.HTTPException):
                    pass  # it broke off: on to the next connection

    def _open(self) -> IO[bytes]:
        while True:
            if self._opened or self._tries:
                time.sleep(min(RETRY_WAIT_MIN * 2 ** min(self._tries, 6), _WAIT_MAX))
            self._tries += 1
            try:
                timeout = SILENCE_SECONDS if self._follow else None
                stream = self._transport.open_once(self._path, query=self._query, timeout=timeout)
                self._opened = True
                return stream
            except LabmeshError as e:
                if not self._again(e):
                    raise

    def _again(self, e: LabmeshError) -> bool:
        if time.monotonic() - self._lost >= self._transport.patience:
            return False
        if isinstance(e, (NotFoundError, DeniedError)):
            return self._opened  # a node that restarts may not know its tasks and keys yet
        if isinstance(e, (UnavailableError, ExhaustedError, InternalError)):
            return self._opened or self._follow or len(self._transport.urls) > 1
        return False


def lines_of(frames: Iterable[LogFrame]) -> Iterator[str]:
    """Whole lines with their ends. What is no UTF-8 becomes ``U+FFFD``."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for frame in frames:
        *whole, rest = (rest + decoder.decode(frame.text)).split("\n")
        for line in whole:
            yield line + "\n"
    rest += decoder.decode(b"", True)
    if rest:
        yield rest
