# SPDX-License-Identifier: MIT
"""`Store`: the few things that an archive does with object storage, over obstore; and what its failures mean.

Objects are written whole or not at all. Where the store is a directory, they are synced as well, since that is what
makes them survive a loss of power; an object store answers only when they do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from chronicle_ffi import ForkedHandle
from chronicle_ffi.archive._errors import ArchiveError

CONNECT: Final = timedelta(seconds=5)
REQUEST: Final = timedelta(minutes=5)  # for a whole segment over a slow line
RETRY: Final = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
SINGLE_PUT: Final = 256 << 20  # bytes; a larger object goes up in parts, which a death may leave in the bucket, unseen
CHUNK: Final = 1 << 20

# Codes of S3's answers, and what to do.
ADVICE: Final = {
    "NoSuchBucket": "there is no such bucket: create it, or correct the URL",
    "InvalidBucketName": "there cannot be such a bucket: correct the URL",
    "AccessDenied": "access is denied: these credentials may not do this here, or there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known there: set AWS_ACCESS_KEY_ID, or check the endpoint",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: set AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: get new ones",
    "RequestTimeTooSkewed": "this machine's clock is off: set it",
    "QuotaExceeded": "the store is full: make room there",
    "InsufficientStorage": "the store is full: make room there",
}
KINDS: Final = {
    "PermissionDeniedError": ADVICE["AccessDenied"],
    "UnauthenticatedError": "it takes nobody without credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}

_owners: list[int] = []  # the process that was the first to use the client, which has threads


def _advice(error: BaseException) -> str:
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code and code[1] in ADVICE:
        return ADVICE[code[1]]
    if type(error).__name__ in KINDS:
        return KINDS[type(error).__name__]
    if "No space left on device" in text or "StorageFull" in text:
        return "the store is full: make room there"
    if "HTTP error" in text or "error sending request" in text:
        return "it cannot be reached: is the server running, and the endpoint right?"
    said = re.search(r"<Message>(.*?)</Message>", text)
    return said[1] if said else text.split("\n", 1)[0]


class Store:
    """A place for objects: "s3://bucket/prefix", "gs://...", "az://...", a directory, or a store of obstore's.

    `options` are those of obstore for that kind of store, such as endpoint, region, allow_http; credentials are taken
    from the environment, as the vendors' own tools do. May be used by several threads.
    """

    def __init__(self, url: Any, options: Mapping[str, str] | None = None, *, create: bool = False) -> None:
        self.directory: Path | None = None  # where the store is one
        if isinstance(url, (str, os.PathLike)):
            self.url = os.fspath(url)
            self._inner = self._open(dict(options or {}), create)
        else:
            self.url = repr(url)
            self._inner = url
            if isinstance(url, LocalStore) and url.prefix is not None:
                self.directory = Path(url.prefix)

    def _open(self, options: dict[str, str], create: bool) -> Any:
        if self.url.startswith("file://"):
            self.url = self.url[len("file://") :]
        if "://" not in self.url:
            self.directory = Path(self.url).absolute()
            if not create and not self.directory.is_dir():
                raise ArchiveError(f"there is no archive at {self.url}: no such directory", file=self.url)
            with self._telling("open", ""):
                return LocalStore(self.directory, mkdir=create)
        client: dict[str, Any] = {"connect_timeout": CONNECT, "timeout": REQUEST}
        if options.pop("allow_http", "").lower() in ("1", "true", "yes"):
            client["allow_http"] = True
        with self._telling("open", ""):
            config: Any = options
            return from_url(self.url, config=config, client_options=client, retry_config=RETRY)

    @contextmanager
    def _telling(self, what: str, key: str) -> Iterator[None]:
        if not _owners:
            _owners.append(os.getpid())
        if _owners[0] != os.getpid():
            raise ForkedHandle(
                "this process was forked from one that had used an archive: the threads of the store's client are not"
                " in here, and it would wait for ever. Use the archive in the child only, or start a program"
            )
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            if isinstance(error, ArchiveError):
                raise
            where = f"{self.url.rstrip('/')}/{key}" if key else self.url
            raise ArchiveError(f"cannot {what} {where}: {_advice(error)}", file=key or self.url) from error

    # ------------------------------------------------------------------------------------- writing

    def put(self, key: str, data: Any, size: int) -> None:
        """Write an object, over what there was of that name. `data` is bytes or a file of `size` bytes."""
        with self._telling("write", key):
            obstore.put(self._inner, key, data, use_multipart=size > SINGLE_PUT)
            self._sync(key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one of that name: False. The store decides between several who try."""
        with self._telling("write", key):
            try:
                obstore.put(self._inner, key, data, mode="create")
            except AlreadyExistsError:
                self._sync(key)  # that of somebody who was killed before he did it
                return False
            self._sync(key)
        return True

    def _sync(self, key: str) -> None:
        if self.directory is None:
            return
        path = self.directory / key
        while True:
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
            if path == self.directory.parent:  # the directory's own name is in there
                return
            path = path.parent

    def delete(self, key: str) -> None:
        with self._telling("delete", key):
            with suppress(FileNotFoundError):
                obstore.delete(self._inner, key)

    # ------------------------------------------------------------------------------------- reading

    def get(self, key: str) -> bytes | None:
        """A small object; None: there is none."""
        with self._telling("read", key):
            try:
                return bytes(obstore.get(self._inner, key).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def stream(self, key: str) -> Iterator[memoryview] | None:
        """All of an object, piece by piece; None: there is none."""
        with self._telling("read", key):
            try:
                found = obstore.get(self._inner, key)
            except FileNotFoundError:
                return None
        return self._pieces(key, found)

    def _pieces(self, key: str, found: Any) -> Iterator[memoryview]:
        with self._telling("read", key):
            for piece in found.stream(min_chunk_size=CHUNK):
                yield memoryview(piece)

    def range(self, key: str, start: int, end: int) -> bytes | None:
        """Bytes [start, end) of an object, fewer where it ends before; None: it is not there, or ends before
        `start`."""
        with self._telling("read", key):
            try:
                return bytes(obstore.get_range(self._inner, key, start=start, end=end))
            except FileNotFoundError:
                return None
            except BaseError as error:
                if (
                    "InvalidRange" in str(error)
                    or "Range Not Satisfiable" in str(error)
                    or "range" in str(error).lower()
                ):
                    return None
                raise

    def names(self, prefix: str, after: str | None = None) -> dict[str, int]:
        """Names behind `after` that begin with the folder `prefix`, in order, and the size of each."""
        found: dict[str, int] = {}
        with self._telling("list", prefix):
            for chunk in obstore.list(self._inner, prefix, offset=after):
                for one in chunk:
                    found[one["path"]] = one["size"]
        return dict(sorted(found.items()))

    def leftovers(self) -> list[str]:
        """Of a directory: what writes that a death cut off have left. The listing does not show them."""
        if self.directory is None:
            return []
        return sorted(
            path.relative_to(self.directory).as_posix()
            for path in self.directory.rglob("*#*")
            if re.search(r"#\d+$", path.name)
        )
