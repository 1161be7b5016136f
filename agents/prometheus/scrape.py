# SPDX-License-Identifier: MIT
"""One endpoint of Prometheus' kind, scraped again and again: asked over HTTP, its answer checked and parsed.

Nothing here believes what the other side says: its answer is bounded in time and in bytes, before and after it is
unpacked; TLS is verified; a redirection is not followed, so that no secret goes elsewhere.
"""

import asyncio
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from agents.base.devices import Globs
from agents.base.worker import CallHung, Worker
from agents.foreign.exposition import ExpositionReader
from agents.foreign.samples import Sample
from agents.prometheus.access import Access, AccessFiles, ScrapeError
from agents.prometheus.endpoint import Endpoint
from agents.prometheus.lookup import make_resolver

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

T = TypeVar("T")

OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain"
ACCEPT_TEXT = f"{TEXT};version=0.0.4"
ACCEPT = f"{ACCEPT_TEXT},{OPENMETRICS};version=1.0.0;q=0.5"
"""The text format first: programs in Go break OpenMetrics' rules by their own ``go_memstats_alloc_bytes``."""

PHRASES = {status.value: status.phrase for status in HTTPStatus}
HINTS = {
    401: "give user and password_file, or token_file",
    403: "its user or token may not read metrics",
    404: "is the path right?",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said, as it came."""

    body: bytes
    packed: bool
    openmetrics: bool


class Scraper:
    """Scrapes one endpoint. Files, unpacking and parsing are the business of a thread of its own.

    Args:
        endpoint: where, and what of it
        owner: for the name of the thread
        longest: characters of a sample's name
    """

    def __init__(self, endpoint: Endpoint, *, owner: str, longest: int) -> None:
        self.endpoint = endpoint
        self.word = endpoint.word
        self.closed = False
        self._address = endpoint.address
        self._accept = ACCEPT
        self._files = AccessFiles(endpoint)
        self._worker = Worker(f"{owner}: {self.word}")
        self._reader = ExpositionReader(
            wanted=Globs(endpoint.include, endpoint.exclude).__contains__,
            max_samples=endpoint.max_samples,
            longest=longest,
        )

    async def scrape(self, session: "ClientSession", timeout_s: float) -> list[Sample]:
        """The samples of the endpoint, all within the time. Raises ScrapeError."""
        late = "did not answer"
        try:
            async with asyncio.timeout(timeout_s):
                access = await self._work(self._files.read, timeout_s) if self._files.is_needed else Access()
                answer = await self._ask(session, access, timeout_s)
                late = "answered what could not be parsed"
                return await self._work(partial(self._parse, answer), timeout_s)
        except (TimeoutError, CallHung):
            raise ScrapeError(f"{self.endpoint.where} {late} within {timeout_s:g} s") from None

    def close(self) -> None:
        """Let go of the thread. A scrape that is under way ends with ScrapeError."""
        self.closed = True
        self._worker.close()

    async def _work(self, function: Callable[[], T], timeout_s: float) -> T:
        if self.closed:
            raise ScrapeError(f"{self.endpoint.where} is no longer scraped")
        return await self._worker.call(function, timeout_s)

    # -- asking ----------------------------------------------------------------------------------------

    async def _ask(self, session: "ClientSession", access: Access, timeout_s: float) -> Answer:
        import aiohttp

        headers = {
            "Accept": self._accept,
            "Accept-Encoding": "gzip",
            "User-Agent": "hostbus",
            "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_s:g}",
        }
        if access.authorization:
            headers["Authorization"] = access.authorization
        try:
            async with session.get(
                self._address, headers=headers, ssl=access.tls or True, allow_redirects=False
            ) as response:
                return await self._take(response)
        except ScrapeError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            reason, detail = _in_words(error)
            raise ScrapeError(f"{self.endpoint.where} {reason}", detail) from None

    async def _take(self, response: "ClientResponse") -> Answer:
        where, limit = self.endpoint.where, self.endpoint.max_size
        if response.status != HTTPStatus.OK:
            reason, detail = _status_in_words(response)
            raise ScrapeError(f"{where} answered {reason}", detail)
        kind = response.headers.get("Content-Type", TEXT).partition(";")[0].strip().lower()
        if kind not in (TEXT, OPENMETRICS):
            raise ScrapeError(
                f"{where} answered with {kind[:80]!r}, not with {TEXT} or {OPENMETRICS}; is the path right?"
            )
        packing = response.headers.get("Content-Encoding", "identity").strip().lower()
        if packing not in ("identity", "gzip"):
            raise ScrapeError(f"{where} answered in the encoding {packing[:80]!r}, not in gzip, which it was asked for")
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > limit:
                raise ScrapeError(f"{where} answered more than max_size, {limit} bytes")
        return Answer(bytes(body), packing == "gzip", kind == OPENMETRICS)

    # -- in the thread ---------------------------------------------------------------------------------

    def _parse(self, answer: Answer) -> list[Sample]:
        where = self.endpoint.where
        try:
            body = unpack(answer.body, self.endpoint.max_size) if answer.packed else answer.body
            samples = self._reader.read(body.decode("utf-8", "replace"), openmetrics=answer.openmetrics)
        except ValueError as error:
            if answer.openmetrics:
                self._accept = ACCEPT_TEXT
            raise ScrapeError(f"{where} answered what makes no sense", str(error)) from None
        return samples if self.endpoint.honor_timestamps else [replace(sample, time=None) for sample in samples]


def unpack(packed: bytes, limit: int) -> bytes:
    """What gzip packed. Raises ValueError if that is more than `limit` bytes, which costs no memory, or broken."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)
    try:
        data = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise ValueError("it says that it is gzip, and is not") from None
    if len(data) > limit:
        raise ValueError(f"more than max_size, {limit} bytes, when unpacked")
    if not unpacker.eof:
        raise ValueError("its gzip is cut off")
    return data


def open_session() -> "ClientSession":
    """For all endpoints of a source: connections stay open, nothing of the environment is heeded, nothing kept.

    Loads aiohttp, which takes a quarter of a second unless a thread has done it before.
    """
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=75, resolver=make_resolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
    )


def _in_words(error: Exception) -> tuple[str, str]:
    """What went wrong on the way, without the URL; and what of it may differ from one time to the next."""
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
            return f"has a TLS certificate that is not trusted ({reason}): name who vouches for it in ca_file", ""
        case aiohttp.ClientConnectorDNSError():
            return "is not known to the DNS", ""
        case aiohttp.ClientSSLError():
            return "does not agree on TLS", getattr(error.os_error, "reason", None) or "the handshake failed"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            return "cannot be reached", os.strerror(number) if number else str(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer", ""
        case aiohttp.ClientPayloadError():
            return "broke off in the middle of its answer", ""
        case aiohttp.ClientResponseError():
            return "answered what is not HTTP", repr(error.message.partition("\n")[0][:100])
        case OSError():
            return "broke off", error.strerror or type(error).__name__
        case _:
            return "cannot be asked", type(error).__name__


def _status_in_words(response: "ClientResponse") -> tuple[str, str]:
    """An answer other than 200, and what of it may differ from one time to the next."""
    status = response.status
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        target = urlsplit(response.headers.get("Location", ""))
        there = urlunsplit((target.scheme, target.netloc.rpartition("@")[2], target.path, "", ""))
        return f"{status}, which points elsewhere", f"give the URL that is meant, perhaps {there[:200]!r}"
    return f"{status} {PHRASES.get(status, '')}".rstrip(), HINTS.get(status, "")
