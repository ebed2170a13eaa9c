"""`boincvm image key`, `publish`, `fetch`, `update`: ship images from a web server."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.image.delivery.fetch import Fetched
    from boincvm.image.delivery.swarm import Sharing

_PUBLISH = """\
Write a directory that any web server can serve: the packed images, patches that make them from
the versions before, and an index that is signed. To publish a new version, give the same command
again.

example:
  boincvm image publish sci /srv/www/images
"""
_FETCH = """\
Bring a published image, and remember where it came from and who signs there. What this computer
has already is not downloaded: an earlier version is changed by a patch.

example:
  boincvm image fetch https://example.org/images sci --key ed25519:KEY
"""
_UPDATE = """\
Bring the newest version of an image that was fetched, or of all.

example:
  boincvm image update
"""
_KEY = """\
Make a key with which boincvm image publish signs, and print its public half, which those who
fetch need. Keep the file secret, and keep a copy.

example:
  boincvm image key
"""


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs with their options."""
    publish = add_verb(verbs, "publish", "write images for a web server, signed", _PUBLISH)
    publish.add_argument("names", metavar="IMAGE", nargs="+")
    publish.add_argument("directory", metavar="DIR", type=Path)
    publish.add_argument(
        "--key", metavar="FILE", type=Path, help="the private key; default: boincvm image key's"
    )
    publish.add_argument(
        "--former-key",
        metavar="FILE",
        type=Path,
        help="the private key that signed until now: those who know it take the new one instead",
    )
    publish.add_argument(
        "--keep", metavar="N", type=int, default=3, help="versions of an image that stay; default 3"
    )
    publish.add_argument(
        "--torrent",
        metavar="URL",
        help="also write torrents for BitTorrent; the address at which the directory is served",
    )
    publish.add_argument(
        "--tracker",
        metavar="URL",
        action="append",
        default=[],
        help="through which those who share the files find each other; repeatable",
    )
    publish.add_argument(
        "--compression",
        choices=["xz", "gzip"],
        default="xz",
        help="of the packed images: xz, the default, is a third smaller; gzip takes seconds to"
        " pack, and not a minute",
    )
    key = add_verb(verbs, "key", "make a key that signs images", _KEY)
    key.add_argument("file", metavar="FILE", nargs="?", type=Path)
    fetch = add_verb(verbs, "fetch", "bring a published image", _FETCH)
    fetch.add_argument("url", metavar="URL")
    fetch.add_argument("name", metavar="NAME", help="its name there, and here")
    fetch.add_argument(
        "--on-demand",
        action="store_true",
        help="only what a machine starts with; boincvm run reads the rest as it is needed",
    )
    trust = fetch.add_mutually_exclusive_group()
    trust.add_argument("--key", metavar="KEY", help="the publisher's public key, or a file with it")
    trust.add_argument(
        "--trust", action="store_true", help="take the key that the address shows, if it is new"
    )
    trust.add_argument(
        "--digest", metavar="D", help="the image's digest, in full; its signature is not needed"
    )
    update = add_verb(verbs, "update", "bring the newest version of fetched images", _UPDATE)
    update.add_argument("name", metavar="NAME", nargs="?", help="default: all that were fetched")
    for verb in (fetch, update):
        verb.add_argument(
            "--peers",
            choices=("no", "tracked", "any"),
            default="tracked",
            help="where an image is offered by BitTorrent: use the web server only; also peers of"
            " its trackers (the default); also peers that are found without them",
        )


def _sharing(arguments: argparse.Namespace) -> "Sharing | None":
    from boincvm.image.delivery.swarm import Sharing

    return None if arguments.peers == "no" else Sharing(is_open=arguments.peers == "any")


def _publish(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from boincvm.image.delivery.keys import default_key, public_key
    from boincvm.image.delivery.publish import describe, publish_images
    from boincvm.image.delivery.torrent_file import check_offer
    from boincvm.image.interruption import terminable
    from boincvm.image.pack_format import Compression
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    key = arguments.key or default_key()
    if arguments.tracker and arguments.torrent is None:
        raise UsageError("--tracker needs --torrent URL", hint="or leave both out")
    offer = None
    if arguments.torrent is not None:
        offer = check_offer(arguments.torrent, tuple(arguments.tracker))
    with terminable():
        index, published = publish_images(
            arguments.names,
            arguments.directory,
            key,
            ImageStore(),
            former_key=arguments.former_key,
            keep=arguments.keep,
            offer=offer,
            compression=Compression(arguments.compression),
            progress=to_standard_error(),
        )
    if arguments.json:
        images = [
            {"name": one.name, "fresh": one.is_new, **asdict(one.version)} for one in published
        ]
        print_indented_json({"serial": index.serial, "key": public_key(key), "images": images})
    else:
        for one in published:
            print(describe(one))
        print(f"signed by {public_key(key)}, number {index.serial}")
    return 0


def _key(arguments: argparse.Namespace) -> int:
    from boincvm.image.delivery.keys import default_key, make_key

    path = arguments.file or default_key()
    public = make_key(path)
    if arguments.json:
        print_indented_json({"file": str(path), "key": public})
    else:
        print(f"{path} has the private key; the public one:\n{public}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from boincvm.image.delivery.fetch import fetch_image
    from boincvm.image.delivery.keys import parse_public
    from boincvm.image.delivery.trust import Trust
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    key = None if arguments.key is None else parse_public(arguments.key)
    with terminable():
        fetched = fetch_image(
            arguments.url,
            arguments.name,
            ImageStore(),
            on_demand=arguments.on_demand,
            trust=Trust(key, arguments.trust, arguments.digest),
            sharing=_sharing(arguments),
            progress=to_standard_error(),
        )
    if arguments.json:
        print_indented_json(_table(fetched))
    else:
        print(fetched.text)
    return 0


def _update(arguments: argparse.Namespace) -> int:
    from boincvm.image.delivery.fetch import fetched_names, update_image
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    store = ImageStore()
    names = [arguments.name] if arguments.name else fetched_names(store)
    done = []
    with terminable():
        for name in names:
            fetched = update_image(
                name,
                store,
                skip_others=arguments.name is None,
                sharing=_sharing(arguments),
                progress=to_standard_error(),
            )
            done.append(_table(fetched))
            if not arguments.json:
                print(fetched.text)
    if arguments.json:
        print_indented_json(done)
    elif not names:
        print("no image was fetched; fetch one: boincvm image fetch URL NAME")
    return 0


def _table(fetched: "Fetched") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(fetched)


VERBS = {"publish": _publish, "key": _key, "fetch": _fetch, "update": _update}
