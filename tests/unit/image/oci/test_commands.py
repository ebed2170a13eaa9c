"""A container's settings: kept in the manifest, given to programs, shown to people."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.errors import ImageDamagedError, UsageError
from boincvm.image.build import Built
from boincvm.image.listing import describe
from boincvm.image.manifest import (
    INITRD,
    KERNEL,
    MANIFEST,
    ROOT,
    ContentFile,
    Manifest,
    OciSettings,
    Recipe,
    decode_manifest,
)
from boincvm.image.object_files import describe as described_file
from boincvm.image.oci.base_images import BaseImage
from boincvm.image.oci.commands import COMMANDS, environment, own_command
from boincvm.image.oci.dockerfile import DockerfileBuild
from boincvm.image.oci.runtime import prepare
from boincvm.image.store import ImageStore
from boincvm.image.tree import Attributes, Tree

ODD = 'h\u00e9llo "x" \\ %41\n\t$HOME'
SETTINGS = OciSettings(
    environment=("PATH=/opt/bin:/bin", f"ODD={ODD}", "EMPTY=", "TWO=a=b"),
    directory="/srv",
    user="app",
    entrypoint=("/bin/app",),
    command=("--text", ODD),
)


def manifest_of(settings: OciSettings | None) -> Manifest:
    files = tuple(ContentFile(name, 1, "0" * 64) for name in (INITRD, KERNEL, ROOT))
    container = "" if settings is None else f"sha256:{'1' * 64}"
    recipe = Recipe(5, "bookworm", (), "g", container=container)
    return Manifest("amd64", recipe, "6", "1", "0", (), files, least_memory=1, oci=settings)


def test_a_manifest_keeps_the_settings_and_can_be_shipped():
    manifest = manifest_of(SETTINGS)
    text = manifest.encode()
    assert decode_manifest(text, Path("m")) == manifest
    assert manifest.is_canonical(text)
    assert text.isascii()


def test_an_image_of_no_container_has_the_manifest_that_it_always_had():
    assert b"oci" not in manifest_of(None).encode()
    assert b"container" not in manifest_of(None).encode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("environment", ["NAME"]),
        ("environment", ["=x"]),
        ("environment", ["A=%00"]),
        ("environment", ["A=%ff"]),
        ("environment", "A=b"),
        ("entrypoint", [7]),
        ("command", None),
        ("directory", 7),
        ("user", ["x"]),
    ],
)
def test_settings_of_anybody_are_checked(key, value):
    document = json.loads(manifest_of(SETTINGS).encode())
    document["oci"][key] = value
    with pytest.raises(ImageDamagedError):
        decode_manifest(json.dumps(document).encode(), Path("m"))


def test_programs_find_the_variables_and_our_commands_last():
    found = environment(manifest_of(SETTINGS))
    assert found["ODD"] == ODD
    assert found["PATH"] == f"/opt/bin:/bin:{COMMANDS}"
    assert (found["EMPTY"], found["TWO"]) == ("", "a=b")
    without = environment(manifest_of(OciSettings()))
    assert without["PATH"].endswith(f":/sbin:/bin:{COMMANDS}")
    assert environment(manifest_of(None)) == {}


@pytest.mark.parametrize(
    ("settings", "argv", "directory"),
    [
        (OciSettings(entrypoint=("a",), command=("b", "c")), ("a", "b", "c"), "/"),
        (OciSettings(command=("python3", "main.py"), directory="/app"), None, "/app"),
        (OciSettings(entrypoint=("./run", "x"), directory="/app"), ("/app/run", "x"), "/app"),
        (OciSettings(entrypoint=("/bin/x",), directory="/app"), ("/bin/x",), "/app"),
    ],
)
def test_the_own_command_is_entry_point_and_command(settings, argv, directory):
    own = own_command(manifest_of(settings))
    assert own is not None
    assert own.argv == (argv or settings.command)
    assert own.directory == directory


@pytest.mark.parametrize("settings", [None, OciSettings(), OciSettings(entrypoint=("",))])
def test_there_need_be_no_own_command(settings):
    assert own_command(manifest_of(settings)) is None


def published(store: ImageStore, settings: OciSettings | None) -> None:
    store.builds.mkdir(parents=True, exist_ok=True)
    directory = store.builds / "object"
    directory.mkdir()
    for name in (INITRD, KERNEL, ROOT):
        (directory / name).write_bytes(b"x")
    files = tuple(described_file(directory / name) for name in (INITRD, KERNEL, ROOT))
    manifest = replace(manifest_of(settings), files=files)
    (directory / MANIFEST).write_bytes(manifest.encode())
    store.publish("app", directory, manifest)


def test_an_image_tells_what_its_programs_find(tmp_path):
    store = ImageStore(tmp_path)
    published(store, SETTINGS)
    with store.open("app") as image:
        assert image.environment["ODD"] == ODD
        assert image.least_memory == 1
        shown = describe(image)
    assert "variable  TWO=a=b" in shown
    assert "directory /srv" in shown
    assert "\n\t" not in shown


def test_a_run_of_another_image_does_not_read_its_manifest(tmp_path, monkeypatch):
    store = ImageStore(tmp_path)
    published(store, None)
    with store.open("app") as image:
        monkeypatch.setattr(type(image), "manifest", property(lambda _: pytest.fail("it is read")))
        assert image.environment == {}


@pytest.fixture
def tree(tmp_path) -> Tree:
    (tmp_path / "root").mkdir()
    return Tree(tmp_path / "root")


def test_an_empty_container_gets_what_the_agent_needs(tree):
    prepare(tree, "/srv/app")
    assert set(tree.names()) == {
        *("dev", "etc", "etc/hosts", "etc/machine-id", "etc/resolv.conf", "proc", "root", "run"),
        *("srv", "srv/app", "sys", "tmp", "work"),
    }
    assert tree.special["tmp"] == Attributes(0o1777)


def test_what_a_container_has_stays_unless_it_is_in_the_way(tree):
    for name in ("etc", "work", "var"):
        tree.add_directory(name)
    tree.add_file("etc/hosts", b"own\n")
    tree.add_file("work/own", b"own")
    tree.add_file("dev", b"no directory")
    tree.add_link("proc", "/etc")
    tree.add_link("tmp", "var/tmp")
    tree.add_link("etc/machine-id", "/run/machine-id")
    tree.add_link("etc/resolv.conf", "../../../../run/resolv.conf")
    prepare(tree, "/work")
    root = tree.directory
    assert (root / "etc/hosts").read_bytes() == b"own\n"
    assert (root / "work/own").read_bytes() == b"own"
    assert (root / "dev").is_dir()
    assert (root / "proc").is_dir()
    assert not (root / "proc").is_symlink()
    assert (root / "var/tmp").is_dir()
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not (root / "etc/resolv.conf").is_symlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-oci", "app.tar"], "no name for the image"),
        (["--from-oci", "app.tar", "--package", "gcc", "app"], "--package with --from-oci"),
        (["--from-oci", "app.tar", "--update", "app"], "--update with --from-oci"),
        (["--from-oci", "app.tar", "--name", "x", "app"], "--name with --from-oci"),
        (["--from-oci", "app.tar", "a/b"], "a/b"),
        (["--from-oci", "app.tar", "--file", "a:/a", "app"], "--file with --from-oci"),
        (["--from-oci", "app.tar", "--target", "x", "app"], "--target without --from-dockerfile"),
        (["--build-arg", "A=1", "app"], "--build-arg without --from-dockerfile"),
        (["--base-image", "a=b", "app"], "--base-image without --from-dockerfile"),
        (["--limit", "1h", "app"], "--limit without --from-dockerfile"),
        (["--no-network", "app"], "--no-network without --from-dockerfile"),
        (["--from-dockerfile", "."], "no name for the image"),
        (["--from-dockerfile", ".", "--pip", "x", "app"], "--pip with --from-dockerfile"),
        (["--from-dockerfile", ".", "--if-missing", "app"], "--if-missing with --from-dockerfile"),
        (["--from-dockerfile", ".", "--file", "a", "--file", "b", "app"], "2 times --file"),
        (["--from-dockerfile", ".", "--limit", "0", "app"], "expected a duration above 0"),
        (["--from-dockerfile", ".", "--limit", "2d", "app"], "expected at most 1d"),
        (["--from-dockerfile", ".", "--limit", "x", "app"], "'x', expected a duration"),
        (["--from-dockerfile", ".", "--build-arg", "a-b", "app"], "expected NAME=VALUE"),
        (["--from-dockerfile", ".", "--base-image", "a", "app"], "expected NAME=FILE"),
    ],
)
def test_what_the_command_line_asks_in_vain(arguments, message, own_home):
    from boincvm.cli.verbs import prepare as prepared

    with pytest.raises(UsageError) as caught:
        prepared(["image", "build", *arguments])()
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dir"], DockerfileBuild(Path("dir"))),
        (
            [
                *("dir", "--file", "a/b:c", "--target", "first", "--build-arg", "A=1"),
                *("--build-arg", "B=2", "--base-image", "debian=d.tar", "--limit", "2h"),
                "--no-network",
            ],
            DockerfileBuild(
                Path("dir"),
                Path("a/b:c"),
                "first",
                ("A=1", "B=2"),
                (BaseImage("docker.io/library/debian:latest", Path("d.tar")),),
                7200.0,
                network=False,
            ),
        ),
    ],
)
def test_what_is_built_of_a_dockerfile(arguments, expected, monkeypatch, own_home):
    from boincvm.cli.verbs import prepare as prepared
    from boincvm.image.oci import dockerfile

    asked = []

    def build(name, wanted, **options):
        asked.append((name, wanted, options["architecture"], options["kernel"]))
        published(ImageStore(), SETTINGS)
        with ImageStore().open_unverified("app") as image:
            return Built(name, image.digest, image.manifest, fresh=True)

    monkeypatch.setattr(dockerfile, "build_dockerfile", build)
    assert prepared(["image", "build", "--from-dockerfile", *arguments, "app"])() == 0
    assert asked == [("app", expected, "amd64", "debian")]


def test_the_own_command_runs_where_no_command_is_given(tmp_path, monkeypatch, own_home):
    from boincvm.cli.verbs import prepare as prepared
    from boincvm.runner import run

    published(ImageStore(), replace(SETTINGS, entrypoint=("./app",), command=("x",)))
    jobs = []
    monkeypatch.setattr(run, "run_job", lambda job, **_: jobs.append(job) or 0)
    prepared(["run", "--image", "app", "-n"])()
    prepared(["run", "--image", "app", "-n", "--directory", "sub"])()
    prepared(["run", "--image", "app", "-n", "--", "other"])()
    tasks = [job.tasks[0] for job in jobs]
    assert [task.argv for task in tasks] == [("/srv/app", "x"), ("/srv/app", "x"), ("other",)]
    assert [str(task.directory) for task in tasks] == ["/srv", "sub", "None"]
