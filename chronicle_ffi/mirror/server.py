# SPDX-License-Identifier: MIT
"""Connections to NATS: where, as whom, and what their failures are called here."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from chronicle_ffi.errors import ChronicleError, InvalidArgument
from chronicle_ffi.mirror.errors import MirrorError, ServerRefused, ServerUnavailable

try:
    import nats
    import nats.errors
    import nats.js.errors
except ImportError as missing:
    raise ImportError(f"{missing}: a mirror needs the extra, pip install 'chronicle-ffi[mirror]'") from None

CONNECT_SECONDS: Final = 5
CLOSE_SECONDS: Final = 1.0
TRIES: Final = 3
ANSWER_SECONDS: Final = 5.0
SCHEMES: Final = ("nats", "tls")
WRONG_LAST_SEQUENCE: Final = (10071, 10164)  # 10164: the same, where the leader has not decided on the one before yet

#: What the client raises, and sockets; some of it passes by itself: see `passing`.
TRANSIENT: Final = (nats.errors.Error, OSError, asyncio.TimeoutError)


@dataclass(frozen=True)
class Access:
    """As whom to connect, and whom to believe. What is not given is not used; files are read at each connection.

    Credentials in a URL are seen by whoever lists processes: prefer files.

    >>> Access(nkey="/etc/chronicle/mirror.nk", ca="/etc/chronicle/ca.pem")
    Access(user=None, credentials=None, nkey='/etc/chronicle/mirror.nk', ca='/etc/chronicle/ca.pem', ...)
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: str | None = None  #: a .creds file: a JWT and its seed
    nkey: str | None = None  #: a file with the seed of an nkey
    ca: str | None = None  #: a file of certificates to believe, instead of the system's; asks for TLS
    certificate: str | None = None  #: a client's certificate, if the server wants one
    key: str | None = None  #: its private key


@dataclass(frozen=True)
class Place:
    """What a URL says."""

    servers: tuple[str, ...]  #: scheme://host:port
    stream: str | None
    user: str | None
    password: str | None = field(repr=False)

    @property
    def tls(self) -> bool:
        return self.servers[0].startswith("tls:")


def is_url(text: object) -> bool:
    return isinstance(text, str) and text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def parse(url: str) -> Place:
    """``nats://[user[:password]@]host[:port][,host[:port]...][/STREAM]``, or tls://."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise InvalidArgument(f"{url!r} is no URL of a NATS server: nats://host:4222/STREAM, or tls://")
    where, _, stream = rest.partition("/")
    who, _, hosts = where.rpartition("@")
    user, _, password = who.partition(":")
    servers = []
    for host in hosts.split(","):
        try:
            parts = urlsplit(f"{scheme}://{host.rpartition('@')[2]}")
            servers.append(f"{scheme}://{_bracketed(parts.hostname)}:{parts.port or 4222}")
        except ValueError as wrong:
            raise InvalidArgument(f"{host!r} is no host and port: {wrong}") from None
    if stream:
        _check_stream(stream)
    return Place(tuple(servers), stream or None, unquote(user) or None, unquote(password) or None)


def _check_stream(stream: str) -> None:
    if not re.fullmatch(r"[^\s.*>/\\]+", stream):
        raise InvalidArgument(f"{stream!r} is no name of a stream: no spaces, and none of . * > / \\")


def stream_of(place: Place, stream: str | None) -> str:
    """The name that was given, or the one in the URL."""
    found = stream or place.stream
    if not found:
        raise InvalidArgument("no stream is named: nats://host:4222/STREAM, or by itself")
    _check_stream(found)
    return found


def _bracketed(host: str | None) -> str:
    if not host:
        raise ValueError("there is no host")
    return f"[{host}]" if ":" in host else host


class _Context(ssl.SSLContext):
    """Notes that it was used: the client would go on in plain text with a server that does not ask for TLS."""

    is_used = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self.is_used = True
        return super().wrap_bio(*args, **kwargs)


def _context(access: Access, tls: bool) -> _Context | None:
    if not (tls or access.ca or access.certificate):
        return None
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificates and names
    if access.ca:
        context.load_verify_locations(access.ca)
    else:
        context.load_default_certs()
    if access.certificate:
        context.load_cert_chain(access.certificate, access.key)
    return context


def _options(place: Place, access: Access, server: str) -> dict[str, Any]:
    """For one connection, as the client takes them."""
    found: dict[str, Any] = {}
    file: str | None = None
    try:
        for file in (access.ca, access.certificate, access.key, access.credentials, access.nkey):
            if file:
                Path(file).read_bytes()  # the client's own failure would not name it
        file = access.certificate or access.ca
        context = _context(access, place.tls)
    except (OSError, ssl.SSLError) as wrong:
        raise ServerRefused(f"cannot use {file}: {wrong}") from None
    if context:
        found["tls"] = context
    if access.credentials:
        found["user_credentials"] = access.credentials
    if access.nkey:
        found["nkeys_seed"] = access.nkey

    def behind_tls(secret: str) -> Any:
        """The client asks when it is about to send it."""
        if context is None:
            return secret

        def tell() -> str:
            _must_be_used(context, server)
            return secret

        return tell

    user, password = access.user or place.user, access.password or place.password
    if user:
        found |= {"user": behind_tls(user), "password": behind_tls(password or "")}
    if access.token:
        found["token"] = behind_tls(access.token)
    return found


def _must_be_used(context: _Context, server: str) -> None:
    if not context.is_used:
        raise ServerRefused(f"{server} does not ask for TLS, and was to: nothing was sent; see its tls block")


def passing(problem: BaseException, where: str) -> ServerUnavailable | MirrorError:
    """What to say of a failure that passes by itself: a server that restarts, a stream without a leader, a connection
    that breaks, a stream that is full. Any other one is raised.
    """
    found = failure(problem, where)
    if isinstance(found, ServerUnavailable) or type(found) is MirrorError:
        return found
    raise found from None


def failure(problem: BaseException, where: str) -> ChronicleError:
    """One of ours for one of the client's."""
    if isinstance(problem, ChronicleError):
        return problem
    text = str(problem) or type(problem).__name__
    if isinstance(problem, ssl.SSLError):
        hint = "check the CA given, the host's name in the URL, and the clocks of both sides"
        return ServerRefused(f"{where}: TLS failed: {text}: {hint}")
    if isinstance(problem, nats.errors.AuthorizationError) or "uthorization" in text or "uthentication" in text:
        return ServerRefused(f"{where} does not accept these credentials: check user, password, nkey or .creds file")
    if "ermissions" in text:
        return ServerRefused(f"{where}: {text}: this user needs to publish and subscribe on $JS.API.> and _INBOX.>")
    if isinstance(problem, nats.js.errors.APIError) and problem.description:
        return MirrorError(f"{where}: {problem.description} (error {problem.err_code})")
    if isinstance(problem, nats.js.errors.ServiceUnavailableError | nats.errors.NoRespondersError):
        return ServerUnavailable(f"{where}: JetStream does not answer: it is off, or has no leader now")
    return ServerUnavailable(f"{where}: {text}")


@asynccontextmanager
async def connection(place: Place, access: Access, name: str) -> AsyncIterator[Any]:
    """A client, connected to one of the servers; it does not reconnect: whoever uses it begins anew, and looks first.

    Raises ServerRefused, ServerUnavailable.
    """
    seen: list[BaseException] = []
    client = await _connect_any(place, access, name, seen)
    try:
        yield client
    except TRANSIENT as problem:
        if seen and isinstance(told := failure(seen[-1], place.servers[0]), ServerRefused):
            raise told from problem  # an operation without permission is only heard of in this way, and not answered
        raise
    finally:
        await _close(client)


async def _connect_any(place: Place, access: Access, name: str, seen: list[BaseException]) -> Any:
    problem: ChronicleError | None = None
    for server in random.sample(place.servers, len(place.servers)) * TRIES:
        seen.clear()
        try:
            return await _connect(server, _options(place, access, server), name, seen)
        except TRANSIENT as met:
            told = (seen or [met])[-1]
            problem = failure(told, server)
            if isinstance(problem, ServerRefused):
                raise problem from None
            # A reset may be faster than the reason that was sent before it.
            if not isinstance(told, ConnectionResetError) and len(place.servers) == 1:
                break
    assert problem is not None
    raise problem


async def _close(client: Any) -> None:
    """Not for ever: behind a handshake that failed, the client waits for an end that nobody tells it of."""
    with contextlib.suppress(*TRANSIENT):
        await asyncio.wait_for(client.close(), CLOSE_SECONDS)


async def _connect(server: str, options: dict[str, Any], name: str, seen: list[BaseException]) -> Any:
    async def note(problem: BaseException) -> None:
        seen.append(problem)

    client = nats.NATS()
    try:
        await asyncio.wait_for(
            client.connect(
                servers=[server], allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0,
                connect_timeout=CONNECT_SECONDS, error_cb=note, name=name, ping_interval=2, max_outstanding_pings=2,
                **options,
            ),
            2 * CONNECT_SECONDS,
        )  # fmt: skip
    except BaseException:
        await _close(client)
        raise
    if "tls" in options and not options["tls"].is_used:
        await _close(client)
        _must_be_used(options["tls"], server)
    return client
