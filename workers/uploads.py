"""Files of a job on their way to the blob store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.core.store import BlobStore
from workers.records import Artifact


def upload(store: BlobStore, key: str, path: Path, media_type: str) -> Artifact:
    """Copy ``path`` to ``key`` and hash it on the way.

    Raises:
        StoreFullError: no space is left.
    """
    digest, size = hashlib.sha256(), 0
    with store.write(key) as target, path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return Artifact(name=path.name, media_type=media_type, bytes=size, sha256=digest.hexdigest(), key=key)
