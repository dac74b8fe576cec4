"""API keys, stored hashed in the blob store so that every gateway sees them."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from models.core.store import BlobStore

Scope = Literal["infer", "data", "jobs", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class UnknownKeyError(KeyError):
    """There is no key of that id."""


class Key(BaseModel):
    """One key as stored: everything but the secret, of which only the SHA-256 is kept."""

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    scopes: list[Scope]
    sha256: str
    created_at: float
    last_used_at: float | None = None


def hash_secret(secret: str) -> str:
    """SHA-256 of a secret of 256 random bits, which needs no salt and no stretching."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """Keys below ``keys/`` in the blob store. Last use is a file of its own, so that noting it cannot undo a
    revocation.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def create(self, name: str, scopes: Sequence[Scope]) -> tuple[Key, str]:
        """Make a key; the returned secret is shown once and never stored.

        Raises:
            ValueError: no name or no scope.
        """
        if not name.strip() or not scopes:
            raise ValueError("a key needs a name and at least one scope")
        secret = f"dn_{secrets.token_urlsafe(32)}"
        key = Key(
            id=f"key_{secrets.token_hex(8)}",
            name=name.strip(),
            scopes=sorted(set(scopes)),
            sha256=hash_secret(secret),
            created_at=time.time(),
        )
        self._store.put(f"keys/{key.id}.json", key.model_dump_json(exclude={"last_used_at"}).encode())
        return key, secret

    def list(self) -> list[Key]:
        """All keys that are not revoked, oldest first."""
        keys, used = [], {}
        for path in self._store.keys("keys"):
            try:
                content = self._store.get(path)
            except FileNotFoundError:  # revoked in between
                continue
            if path.endswith(".json"):
                keys.append(Key.model_validate_json(content))
            elif path.endswith(".used"):
                used[path.removeprefix("keys/").removesuffix(".used")] = float(content)
        found = [key.model_copy(update={"last_used_at": used.get(key.id)}) for key in keys]
        return sorted(found, key=lambda key: key.created_at)

    def administers(self, owner: str) -> bool:
        """Whether ``owner`` sees what every key made: the keys of the environment and of a service without keys do."""
        if not owner.startswith("key_"):
            return True
        return any(key.id == owner and "admin" in key.scopes for key in self.list())

    def revoke(self, key_id: str) -> None:
        """Remove a key; gateways refuse it within two seconds.

        Raises:
            UnknownKeyError: there is no such key.
        """
        if not key_id.startswith("key_") or "/" in key_id or not self._store.exists(f"keys/{key_id}.json"):
            raise UnknownKeyError(key_id)
        self._store.delete(f"keys/{key_id}.json")
        self._store.delete(f"keys/{key_id}.used")

    def note_use(self, key_id: str, at: float) -> None:
        """Record the time of the last use."""
        self._store.put(f"keys/{key_id}.used", repr(at).encode())
