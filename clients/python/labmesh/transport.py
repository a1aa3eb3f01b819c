"""Requests to the mesh: to whichever of its nodes answers, again where that is safe."""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any, Optional, TypeVar
from urllib.parse import urlencode, urlsplit

from .errors import ExhaustedError, InternalError, LabmeshError, TooLargeError, UnavailableError, error_of

RETRY_WAIT_MIN = 0.05
RETRY_WAIT_MAX = 5.0
ANSWER_BYTES_MAX = 256 << 20
ERROR_BYTES_MAX = 64 << 10

Query = Mapping[str, str]
Answer = TypeVar("Answer")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key goes to the address that it was given for and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _LostError(Exception):
    """A try that came to nothing but may be repeated."""

    def __init__(self, error: LabmeshError, *, wait: float = 0, nobody: bool = False, elsewhere: bool = True) -> None:
        self.error = error
        self.wait = wait  # seconds that the node asked for; 0 when it did not
        self.nobody = nobody  # there was no connection at all
        self.elsewhere = elsewhere  # another node may do better


class Transport:
    """Sends requests to the first of several addresses that answers.

    Every request may be sent twice when its answer was lost: those that change
    something must bear that.
    """

    def __init__(
        self,
        urls: tuple[str, ...],
        api_key: Optional[str],
        *,
        patience: float,
        timeout: float,
        ssl_context: Optional[ssl.SSLContext],
        source: Optional[str],
    ) -> None:
        self.urls = urls
        self.patience = patience
        self._key = api_key
        self._timeout = timeout
        self._source = source
        self._current = 0
        self._met = False  # somebody has answered once
        tls = urllib.request.HTTPSHandler(context=ssl_context)
        self._direct = urllib.request.build_opener(_NoRedirects, tls, urllib.request.ProxyHandler({}))
        self._proxied = urllib.request.build_opener(_NoRedirects, tls)

    @property
    def url(self) -> str:
        """The address that is asked first: the one that answered last."""
        return self.urls[self._current]

    def call(
        self, method: str, path: str, *, query: Optional[Query] = None, body: Any = None, timeout: Optional[float] = None
    ) -> Any:
        """Make a request and decode its answer."""
        data = None if body is None else encode(body)
        answer = self._repeat(lambda url: self._read(url, method, path, query, data, timeout))
        try:
            return json.loads(answer)
        except ValueError as e:
            raise InternalError(f"the answer to {method} {path} is no JSON ({e}): is a labmesh node at {self.url}?") from None

    def open(self, path: str, *, query: Optional[Query] = None, timeout: Optional[float] = None) -> IO[bytes]:
        """Begin a GET whose answer is read by the caller, who closes it."""
        return self._repeat(lambda url: self._send(url, "GET", path, query, None, timeout))

    def open_once(self, path: str, *, query: Optional[Query] = None, timeout: Optional[float] = None) -> IO[bytes]:
        """The same without patience; after a failure the next address is asked next time."""
        try:
            return self._send(self.url, "GET", path, query, None, timeout)
        except _LostError as lost:
            if lost.elsewhere:
                self._turn()
            raise lost.error from None

    def _repeat(self, once: Callable[[str], Answer]) -> Answer:
        deadline = time.monotonic() + self.patience
        tries, nobody = 0, 0
        while True:
            try:
                answer = once(self.url)
                self._met = True
                return answer
            except _LostError as lost:
                tries += 1
                nobody = nobody + 1 if lost.nobody else 0
                if nobody >= len(self.urls) and not self._met:
                    raise lost.error from None
                if lost.elsewhere:
                    self._turn()
                wait = lost.wait or RETRY_WAIT_MIN * 2 ** min(tries // len(self.urls), 6)
                if lost.elsewhere and tries % len(self.urls) != 0:
                    wait = 0  # another node has not been asked yet
                wait = min(wait, RETRY_WAIT_MAX)
                if time.monotonic() + wait > deadline:
                    raise lost.error from None
                time.sleep(wait)

    def _turn(self) -> None:
        self._current = (self._current + 1) % len(self.urls)

    def _read(self, url: str, method: str, path: str, query: Optional[Query], data: Optional[bytes], timeout: Optional[float]) -> bytes:
        with self._send(url, method, path, query, data, timeout) as response:
            try:
                answer = response.read(ANSWER_BYTES_MAX + 1)
            except (OSError, http.client.HTTPException) as e:
                raise _LostError(self._unreached(url, e)) from None
            if len(answer) > ANSWER_BYTES_MAX:
                raise TooLargeError(f"the answer to {method} {path} is over {ANSWER_BYTES_MAX >> 20} MiB: ask for less")
            if getattr(response, "length", None):  # what is missing of a body that broke off
                raise _LostError(self._unreached(url, EOFError("the answer broke off")))
        return answer

    def _send(
        self, url: str, method: str, path: str, query: Optional[Query], data: Optional[bytes], timeout: Optional[float]
    ) -> IO[bytes]:
        target = url + path + ("?" + urlencode(query) if query else "")
        request = urllib.request.Request(target, data=data, method=method)
        request.add_header("User-Agent", "labmesh-python")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self._key:
            request.add_unredirected_header("X-API-Key", self._key)
        opener = self._direct if _is_loopback(url) else self._proxied
        try:
            answer: IO[bytes] = opener.open(request, timeout=timeout or self._timeout)
            return answer
        except urllib.error.HTTPError as e:
            with e:
                raise self._refused(e) from None
        except urllib.error.URLError as e:
            cause = e.reason if isinstance(e.reason, Exception) else e
            if isinstance(cause, ssl.SSLError):
                raise self._unreached(url, cause) from None
            lost = isinstance(cause, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError))
            raise _LostError(self._unreached(url, cause), nobody=not lost) from None
        except TimeoutError as e:  # it has taken the request, and may be at work on it
            raise self._unreached(url, e) from None
        except (OSError, http.client.HTTPException) as e:
            raise _LostError(self._unreached(url, e)) from None

    def _refused(self, e: urllib.error.HTTPError) -> Exception:
        """What an answer that is not 2xx comes to."""
        try:
            data = e.read(ERROR_BYTES_MAX)
        except (OSError, http.client.HTTPException):
            data = b""
        error = error_of(e.code, *_words(data, f"the node answered {e.code} {e.reason}"))
        if not isinstance(error, (UnavailableError, ExhaustedError)):
            return error
        try:
            wait = max(float(e.headers.get("Retry-After", "0")), 0)
        except ValueError:
            wait = 0
        return _LostError(error, wait=wait, elsewhere=isinstance(error, UnavailableError))

    def _unreached(self, url: str, cause: Exception) -> UnavailableError:
        where = url + (f" (from {self._source})" if self._source else "")
        why = str(cause) or type(cause).__name__
        return UnavailableError(f"no labmesh node answers at {where}: {why}; start one with `labmesh up`, or name another")


def encode(body: Any) -> bytes:
    """A body as JSON. What JSON has no word for is an error of the caller."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _words(data: bytes, otherwise: str) -> tuple[str, Optional[str]]:
    """The message and the field of an error."""
    try:
        said = json.loads(data)
        message, field = said["error"], said.get("field")
        if not isinstance(message, str) or not message:
            raise TypeError
        if said.get("request_id"):
            message += f" (request {said['request_id']} in the node's log)"
        return message, field
    except (ValueError, KeyError, TypeError, AttributeError):
        text = data.decode("utf-8", "replace").strip()
        return otherwise + (f": {text[:200]}" if text else ""), None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
