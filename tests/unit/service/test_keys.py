"""Keys: the secret is shown once and only its hash is kept."""

import pytest

from models.core.store import BlobStore
from service.keys import KeyStore, UnknownKeyError, hash_secret


@pytest.fixture
def keys(tmp_path):
    return KeyStore(BlobStore(str(tmp_path)))


def test_the_secret_is_nowhere_in_the_store(keys, tmp_path):
    key, secret = keys.create("ci", ["infer"])
    assert secret.startswith("dn_")
    assert len(secret) > 40
    assert key.sha256 == hash_secret(secret)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.sha256.encode() in stored
    assert secret.encode() not in stored


def test_last_use_does_not_undo_a_revocation(keys):
    key, _ = keys.create("ci", ["infer", "data", "infer"])
    assert key.scopes == ["data", "infer"]
    keys.note_use(key.id, 12.5)
    assert keys.list()[0].last_used_at == 12.5
    keys.revoke(key.id)
    keys.note_use(key.id, 13.5)
    assert keys.list() == []


@pytest.mark.parametrize("key_id", ["key_unknown", "../keys", "key_/../x", ""])
def test_revoking_what_is_not_there(keys, key_id):
    with pytest.raises(UnknownKeyError):
        keys.revoke(key_id)


@pytest.mark.parametrize(("name", "scopes"), [("", ["infer"]), (" ", ["infer"]), ("a", [])])
def test_a_key_needs_a_name_and_a_scope(keys, name, scopes):
    with pytest.raises(ValueError, match="needs a name"):
        keys.create(name, scopes)
