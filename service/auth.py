"""Who calls: bearer keys, scopes, and the rate limit of a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from fastapi import Request
from fastapi.security import HTTPBearer

from models.core.store import StoreUnavailableError
from service.keys import SCOPES, Key, KeyStore, Scope, hash_secret
from service.problems import Problem
from service.ratelimit import RateLimiter

log = structlog.get_logger("deepnight.auth")

REFRESH_S = 2.0
NOTE_USE_S = 60.0

bearer = HTTPBearer(auto_error=False, description="`Authorization: Bearer dn_...`")


@dataclass(frozen=True)
class Caller:
    """The owner of a request.

    Attributes:
        id: the key's id; what the caller makes belongs to it.
        name: the key's name, for logs and metrics.
        scopes: what the key may do.
    """

    id: str
    name: str
    scopes: frozenset[Scope]

    @property
    def owner(self) -> str:
        """The owner written into what the caller makes."""
        return self.id

    @property
    def admin(self) -> bool:
        """Whether the caller sees what every key made."""
        return "admin" in self.scopes


LOCAL = Caller("local", "local", frozenset(SCOPES))


class Authenticator:
    """Looks keys up by the hash of their secret in a copy of the key store that is at most two seconds old; while the
    store is away, when no key can be revoked either, in the last copy.

    Args:
        configured: keys from the environment, with every scope.
        open_on_loopback: without any key, everybody is the owner of this service.
    """

    def __init__(self, keys: KeyStore, configured: str, *, open_on_loopback: bool, limiter: RateLimiter) -> None:
        self._keys = keys
        self._limiter = limiter
        self._open = open_on_loopback
        self._configured = {
            hash_secret(secret): Caller(f"env_{hash_secret(secret)[:12]}", "environment", frozenset(SCOPES))
            for secret in (part.strip() for part in configured.split(","))
            if secret
        }
        self._callers: dict[str, Caller] = {}
        self._refreshed = float("-inf")
        self._noted: dict[str, float] = {}
        self._refreshing = asyncio.Lock()
        self._notes: set[asyncio.Task[None]] = set()

    async def configured(self) -> bool:
        """Whether any key exists."""
        await self._refresh()
        return bool(self._configured or self._callers)

    async def authenticate(self, request: Request) -> Caller:
        """The caller of ``request``.

        Raises:
            Problem: 401 without a valid key, 429 beyond the key's rate.
            StoreUnavailableError: the store was away since the start, and nobody knows the keys.
        """
        header = request.headers.get("authorization")
        if header is None:
            if self._open and not await self.configured():
                return LOCAL
            raise _unauthorized("no API key was sent: Authorization: Bearer dn_...")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _unauthorized("the Authorization header is not `Bearer <key>`")
        await self._refresh()
        digest = hash_secret(secret.strip())
        caller = self._configured.get(digest) or self._callers.get(digest)
        if caller is None:
            if self._open and not self._configured and not self._callers:
                return LOCAL
            raise _unauthorized("the API key is not valid")
        await self._limiter.spend(caller, request)
        self._note_use(caller)
        return caller

    async def _refresh(self) -> None:
        if time.monotonic() - self._refreshed < REFRESH_S:
            return
        async with self._refreshing:
            if time.monotonic() - self._refreshed < REFRESH_S:
                return
            try:
                keys = await asyncio.to_thread(self._keys.list)
            except StoreUnavailableError as error:
                if self._refreshed == float("-inf"):
                    raise
                log.warning("the store is away: the keys known last hold on", error=str(error))
            else:
                self._callers = {key.sha256: _caller(key) for key in keys}
            self._refreshed = time.monotonic()

    def _note_use(self, caller: Caller) -> None:
        now = time.time()
        if not caller.id.startswith("key_") or now - self._noted.get(caller.id, 0.0) < NOTE_USE_S:
            return
        self._noted[caller.id] = now
        task = asyncio.create_task(asyncio.to_thread(self._keys.note_use, caller.id, now))
        self._notes.add(task)
        task.add_done_callback(self._noted_use)

    def _noted_use(self, task: asyncio.Task[None]) -> None:
        self._notes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("the last use of a key could not be noted", error=str(task.exception()))


def require(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """FastAPI dependency: the caller, who must hold ``scope`` (``admin`` holds every scope).

    Raises:
        Problem: 401, 403 naming the missing scope, or 429.
    """

    async def dependency(request: Request) -> Caller:
        caller: Caller = await request.app.state.authenticator.authenticate(request)
        request.state.caller = caller
        if scope not in caller.scopes and not caller.admin:
            raise Problem(403, f"this key lacks the scope `{scope}`", code="missing_scope")
        return caller

    return dependency


def _caller(key: Key) -> Caller:
    return Caller(key.id, key.name, frozenset(key.scopes))


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"}, code="invalid_api_key")
