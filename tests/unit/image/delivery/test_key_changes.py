"""Replacing the key that signs: hosts that trust the old one go on with the new one."""

import json
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import ImageDamagedError, UsageError
from boincvm.image.delivery import keys
from boincvm.image.delivery.fetch import fetch_image, update_image
from boincvm.image.delivery.key_changes import MOST_CHANGES, sign_change
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.trust import Trust
from boincvm.image.store import ImageStore
from support.image_server import ImageServer
from support.versions import build

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def new_key(tmp_path: Path) -> Path:
    keys.make_key(tmp_path / "new.pem")
    return tmp_path / "new.pem"


def remembered(store: ImageStore, server: ImageServer) -> str:
    document = json.loads((store.root / "sources.json").read_text())
    return str(document["sources"][server.url]["key"])


def altered(www: Path, **values: object) -> None:
    """Alter the last change of keys."""
    document = json.loads((www / "keys.json").read_text())
    document["changes"][-1] |= values
    (www / "keys.json").write_text(json.dumps(document))


def test_who_trusts_the_old_key_takes_the_new_one(
    server, publisher, www, key, new_key, trust, store, digest
):
    fetch_image(server.url, "sci", store, trust=trust)
    newest = build(publisher, "sci", 1)
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    assert update_image("sci", store).digest == newest
    assert remembered(store, server) == keys.public_key(new_key)
    # From then on the new key signs alone, and the old one is worth nothing here any more.
    newest = build(publisher, "sci", 2)
    publish_images(["sci"], www, new_key, publisher)
    assert update_image("sci", store).digest == newest
    with pytest.raises(UsageError, match="was not signed with the key"):
        publish_images(["sci"], www, key, publisher)


def test_a_key_is_replaced_where_nothing_is_new(
    server, publisher, www, key, new_key, store, digest
):
    first = json.loads((www / "index.json").read_text())["serial"]
    for _ in range(2):  # the second time there is nothing to do
        index, published = publish_images(["sci"], www, new_key, publisher, former_key=key)
        assert (index.serial, published[0].is_new) == (first + 1, False)
    assert len(json.loads((www / "keys.json").read_text())["changes"]) == 1
    fetch_image(server.url, "sci", store, trust=Trust(keys.public_key(new_key)))


def test_a_change_that_was_interrupted(server, publisher, www, key, new_key, trust, store, digest):
    """The change is there, and the old key still signs."""
    index = {name: (www / name).read_bytes() for name in ("index.json", "index.json.sig")}
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    for name, content in index.items():
        (www / name).write_bytes(content)
    fetch_image(server.url, "sci", store, trust=trust)
    assert remembered(store, server) == keys.public_key(key)
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    assert update_image("sci", store).way == "present"
    assert remembered(store, server) == keys.public_key(new_key)


def test_several_changes_are_followed(
    server, publisher, www, key, new_key, trust, store, tmp_path, digest
):
    """Also round in a circle; and any of the keys may be given."""
    fetch_image(server.url, "sci", store, trust=trust)
    third = tmp_path / "third.pem"
    keys.make_key(third)
    for former, following in ((key, new_key), (new_key, third), (third, key), (key, third)):
        publish_images(["sci"], www, following, publisher, former_key=former)
    assert update_image("sci", store).way == "present"
    assert remembered(store, server) == keys.public_key(third)
    for one in (new_key, key, third):
        fetch_image(server.url, "sci", store, trust=Trust(keys.public_key(one)))
        assert remembered(store, server) == keys.public_key(third)


@pytest.mark.parametrize("named", ["known", "new", "none"])
def test_the_old_key_does_not_come_back(
    named, server, publisher, www, key, new_key, trust, store, digest
):
    """Who has found or stolen the old key cannot publish for those who have the new one."""
    index = {name: (www / name).read_bytes() for name in ("index.json", "index.json.sig")}
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    fetch_image(server.url, "sci", store, trust=trust)
    for name, content in index.items():
        (www / name).write_bytes(content)
    named_key = {"known": keys.public_key(key), "new": keys.public_key(new_key), "none": None}
    with pytest.raises(ImageDamagedError, match="is not signed by"):
        fetch_image(server.url, "sci", store, trust=Trust(named_key[named]))


@pytest.mark.parametrize("what", ["signature", "new", "old", "by itself"])
def test_a_change_that_the_old_key_has_not_signed(
    what, server, publisher, www, key, new_key, trust, store, tmp_path, digest
):
    fetch_image(server.url, "sci", store, trust=trust)
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    other = keys.make_key(tmp_path / "other.pem")
    if what == "by itself":
        new, old = keys.public_key(new_key), keys.public_key(key)
        altered(www, signature=sign_change(tmp_path / "other.pem", new).signature, old=old)
    else:
        altered(www, **{what: "é" * 88 if what == "signature" else other})
    with pytest.raises(ImageDamagedError, match="is not signed by"):
        update_image("sci", store)
    assert remembered(store, server) == keys.public_key(key)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", "'format' is missing"),
        ("[]", "a value has the wrong type"),
        ('{"format": 2}', "format 2, expected 1"),
        ('{"format": 1, "changes": [{}]}', "'old' is missing"),
        ('{"format": 1, "changes": [{"old": 1}]}', "a text is missing or invalid"),
        ('{"format": 1, "changes": [{"old": "ed25519:"}]}', "is not a public key"),
        ("[" * 10_000, "it is nested too deeply"),
        (json.dumps({"format": 1, "changes": [{}] * (MOST_CHANGES + 1)}), "it has more than"),
    ],
)
def test_what_is_no_file_of_changes(
    content, why, server, publisher, www, key, new_key, trust, store, digest
):
    fetch_image(server.url, "sci", store, trust=trust)
    publish_images(["sci"], www, new_key, publisher, former_key=key)
    (www / "keys.json").write_text(content)
    with pytest.raises(ImageDamagedError, match=why) as caught:
        update_image("sci", store)
    assert "keys.json cannot be read" in caught.value.message


def test_a_key_does_not_replace_itself(publisher, www, key, digest):
    with pytest.raises(UsageError, match="has the same key as"):
        publish_images(["sci"], www, key, publisher, former_key=key)
    assert not (www / "keys.json").exists()


def test_the_former_key_signed_something_else(publisher, www, key, new_key, tmp_path, digest):
    other = tmp_path / "other.pem"
    keys.make_key(other)
    with pytest.raises(UsageError, match="was not signed with the key") as caught:
        publish_images(["sci"], www, new_key, publisher, former_key=other)
    assert "--former-key" in caught.value.hint
    assert not (www / "keys.json").exists()


def test_the_command(server, www, tmp_path, capsys):
    build(ImageStore(), "sci", 0)
    old, new = (str(tmp_path / name) for name in ("old.pem", "new.pem"))
    publics = []
    for path in (old, new):
        assert main(["image", "key", path, "--json"]) == 0
        publics.append(json.loads(capsys.readouterr().out)["key"])
    assert main(["image", "publish", "sci", str(www), "--key", old]) == 0
    assert main(["image", "fetch", server.url, "sci", "--key", publics[0]]) == 0
    assert main(["image", "publish", "sci", str(www), "--key", new, "--former-key", old]) == 0
    assert f"signed by {publics[1]}, number 2" in capsys.readouterr().out
    assert main(["image", "update"]) == 0
    shown = capsys.readouterr().err
    assert f"its publisher has replaced the key {publics[0]} by {publics[1]}" in shown
