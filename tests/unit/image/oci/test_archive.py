"""Archives of containers: both formats, all compressions, and what is refused with which reason."""

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.errors import ImageBuildError, InputFileError
from boincvm.image.oci.archive import opened
from boincvm.image.oci.build import flattened
from boincvm.image.oci.container import Container, read_container
from boincvm.image.tree import Tree
from support.containers import (
    OCI,
    PACKED,
    Entry,
    blob,
    config_of,
    descriptor,
    docker_archive,
    layout,
    link,
    oci_archive,
    oci_entries,
    tar_of,
    zstd,
)

LAYERS = [
    tar_of([Entry("bin/app", b"1" * 3000, mode=0o755), Entry("etc/old", b"old")]),
    tar_of([Entry("etc/.wh.old"), Entry("etc/new", b"new")]),
]
SETTINGS = {
    "Env": ["PATH=/opt/bin:/bin", 'GREETING=h\u00e9llo = "x"\\\n'],
    "WorkingDir": "/srv",
    "User": "1000:100",
    "Entrypoint": ["/bin/app"],
    "Cmd": ["--all"],
}


def read(path: Path, directory: Path, architecture: str = "amd64") -> tuple[Container, Tree]:
    work = directory / "work"
    work.mkdir()
    with opened(path, work) as archive:
        container = read_container(archive, architecture)
        tree = flattened(archive, container, work)
    assert [entry.name for entry in work.iterdir()] == ["root"], "temporary files are gone"
    return container, tree


def refusal(path: Path, directory: Path, architecture: str = "amd64") -> ImageBuildError:
    with pytest.raises(ImageBuildError) as caught:
        read(path, directory, architecture)
    assert caught.value.message.startswith("the container's archive is refused: ")
    return caught.value


def check(container: Container, tree: Tree) -> None:
    assert tree.names() == ["bin", "bin/app", "etc", "etc/new"]
    assert (tree.directory / "bin/app").read_bytes() == b"1" * 3000
    settings = container.settings
    assert settings.environment == tuple(SETTINGS["Env"])
    assert (settings.directory, settings.user) == ("/srv", "1000:100")
    assert (settings.entrypoint, settings.command) == (("/bin/app",), ("--all",))


@pytest.mark.parametrize("packing", list(PACKED))
def test_an_oci_layout_is_read(tmp_path, packing):
    path = oci_archive(tmp_path / "app.tar", LAYERS, SETTINGS, packing=packing)
    check(*read(path, tmp_path))


def test_what_docker_save_writes_is_read(tmp_path):
    path = docker_archive(tmp_path / "app.tar", [*LAYERS, LAYERS[1]], SETTINGS)
    check(*read(path, tmp_path))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_the_whole_archive_may_be_compressed(tmp_path, pack: Callable[[bytes], bytes]):
    path = oci_archive(tmp_path / "app.tar", LAYERS, SETTINGS)
    path.write_bytes(pack(path.read_bytes()))
    check(*read(path, tmp_path))


def test_both_formats_of_one_container_are_the_same_container(tmp_path):
    one = read(oci_archive(tmp_path / "1.tar", LAYERS, SETTINGS), tmp_path)[0]
    (tmp_path / "other").mkdir()
    other = read(docker_archive(tmp_path / "2.tar", LAYERS, SETTINGS), tmp_path / "other")[0]
    assert (one.digest, one.settings) == (other.digest, other.settings)


def test_the_platform_is_chosen_and_what_is_not_saved_is_passed_over(tmp_path):
    """`docker save` names all platforms of an image, and attestations, and saves one platform."""
    amd64, of_amd64 = oci_entries(LAYERS, SETTINGS)
    arm64, of_arm64 = oci_entries(LAYERS[:1], architecture="arm64")
    _, absent = oci_entries(LAYERS, architecture="riscv64")
    attestation = descriptor(b"{}", f"{OCI}.manifest.v1+json", platform={"os": "unknown"})
    index = json.dumps({"manifests": [of_arm64, of_amd64, absent, attestation]}).encode()
    path = tmp_path / "app.tar"
    blobs = [*amd64, *arm64, blob(index)]
    path.write_bytes(tar_of(layout(blobs, descriptor(index, f"{OCI}.index.v1+json"))))
    check(*read(path, tmp_path))
    (tmp_path / "arm64").mkdir()
    assert read(path, tmp_path / "arm64", "arm64")[1].names() == [
        "bin",
        "bin/app",
        "etc",
        "etc/old",
    ]


def test_another_architecture_is_named(tmp_path):
    path = oci_archive(tmp_path / "app.tar", LAYERS, architecture="arm64")
    error = refusal(path, tmp_path)
    assert "no container for amd64, but for arm64" in error.message
    assert "--architecture arm64" in error.hint


def test_several_containers_are_named(tmp_path):
    found = [oci_entries(LAYERS[:count]) for count in (1, 2)]
    for number, (_, one) in enumerate(found):
        one["annotations"] = {"org.opencontainers.image.ref.name": f"app{number}"}
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout([*found[0][0], *found[1][0]], found[0][1], found[1][1])))
    assert "several containers: app0, app1" in refusal(path, tmp_path).message


def altered(entries: list[Entry], index: int, content: bytes) -> list[Entry]:
    return [*entries[:index], entries[index]._replace(content=content), *entries[index + 1 :]]


def changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("packing", list(PACKED))
def test_an_altered_layer_is_refused(tmp_path, packing):
    blobs, of_manifest = oci_entries(LAYERS, packing=packing)
    layer = altered(blobs, 2, changed(blobs[2].content))
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout(layer, of_manifest)))
    assert "does not have the digest" in refusal(path, tmp_path).message


def test_a_layer_with_other_content_than_the_configuration_says_is_refused(tmp_path):
    other = [tar_of([Entry("evil", b"evil")]), LAYERS[1]]
    config = config_of(LAYERS, "amd64", {})
    manifest = json.dumps(
        {
            "config": descriptor(config, "x"),
            "layers": [descriptor(layer, f"{OCI}.layer.v1.tar") for layer in other],
        }
    ).encode()
    path = tmp_path / "app.tar"
    blobs = [blob(content) for content in (config, manifest, *other)]
    path.write_bytes(tar_of(layout(blobs, descriptor(manifest, f"{OCI}.manifest.v1+json"))))
    assert "the content of the layer" in refusal(path, tmp_path).message


def test_an_altered_docker_layer_is_refused(tmp_path):
    path = docker_archive(tmp_path / "app.tar", LAYERS)
    path.write_bytes(path.read_bytes().replace(b"1" * 3000, b"1" * 2999 + b"2"))
    assert "does not have the digest" in refusal(path, tmp_path).message


@pytest.mark.parametrize("index", [0, 1])
def test_an_altered_configuration_or_manifest_is_refused(tmp_path, index):
    blobs, of_manifest = oci_entries(LAYERS)
    content = blobs[index].content.replace(b"linux", b"Linux").replace(b"Version", b"version")
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout(altered(blobs, index, content), of_manifest)))
    assert "does not have the digest" in refusal(path, tmp_path).message


def test_a_wrong_size_is_refused(tmp_path):
    blobs, of_manifest = oci_entries(LAYERS)
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout(blobs, {**of_manifest, "size": 7})))
    assert "and should have 7" in refusal(path, tmp_path).message


@pytest.mark.parametrize("index", [0, 2])
def test_a_missing_blob_is_named(tmp_path, index):
    blobs, of_manifest = oci_entries(LAYERS)
    lacking = blobs.pop(index)
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout(blobs, of_manifest)))
    message = refusal(path, tmp_path).message
    assert "it lacks the" in message
    assert lacking.name.rpartition("/")[2][:12] in message


def config_with(**more: object) -> bytes:
    return json.dumps({**json.loads(config_of(LAYERS, "amd64", {})), **more}).encode()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"[]", "lacks an object"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (config_with(os="windows"), "no container for amd64"),
        (config_with(architecture=7), "lacks a text"),
        (config_with(rootfs={}), "lacks a list"),
        (config_with(rootfs={"diff_ids": []}), "names 0"),
        (config_with(rootfs={"diff_ids": ["md5:00", "md5:00"]}), "is no digest"),
        (config_with(config={"Env": ["NAME"]}), "variable without a value"),
        (config_with(config={"Env": ["=x"]}), "variable without a value"),
        (config_with(config={"Env": ["A=\0"]}), "no program can be given"),
        (config_with(config={"Env": ["A=\ud800"]}), "no program can be given"),
        (config_with(config={"Env": "A=b"}), "lacks a list"),
        (config_with(config={"Env": ["A=" + "x" * 200_000]}), "more than 131072"),
        (config_with(config={"WorkingDir": "srv"}), "no absolute path"),
        (config_with(config=[]), "lacks an object"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path, config, reason):
    manifest = json.dumps(
        {
            "config": descriptor(config, "x"),
            "layers": [descriptor(layer, f"{OCI}.layer.v1.tar") for layer in LAYERS],
        }
    ).encode()
    path = tmp_path / "app.tar"
    blobs = [blob(content) for content in (config, manifest, *LAYERS)]
    path.write_bytes(tar_of(layout(blobs, descriptor(manifest, f"{OCI}.manifest.v1+json"))))
    assert reason in refusal(path, tmp_path).message


def test_an_unknown_kind_of_layer_is_named(tmp_path):
    """Helm charts and the like are in such archives, too."""
    config = config_of(LAYERS, "amd64", {})
    layers = [descriptor(layer, "application/vnd.wasm.content.layer.v1+wasm") for layer in LAYERS]
    manifest = json.dumps({"config": descriptor(config, "x"), "layers": layers}).encode()
    path = tmp_path / "app.tar"
    blobs = [blob(content) for content in (config, manifest, *LAYERS)]
    path.write_bytes(tar_of(layout(blobs, descriptor(manifest, f"{OCI}.manifest.v1+json"))))
    assert "vnd.wasm.content" in refusal(path, tmp_path).message


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "neither index.json nor manifest.json"),
        ([Entry("etc/passwd", b"")], "neither index.json nor manifest.json"),
        ([Entry("index.json", b"{}"), Entry("./index.json", b"{}")], "two files 'index.json'"),
        ([Entry("index.json", b"{}")], "lacks a list"),
        ([Entry("index.json", b" " * (5 << 20))], "and may have"),
        ([link("index.json", "a"), link("a", "index.json")], "loop of links"),
        ([Entry("index.json", kind=tarfile.FIFOTYPE)], "a device or a pipe"),
        ([link("index.json", "/etc/passwd")], "neither index.json nor manifest.json"),
        ([link("index.json", "../../../../etc/passwd")], "neither index.json nor manifest.json"),
        ([Entry("manifest.json", b"[]")], "no container for amd64"),
        ([Entry("manifest.json", b'[{"Config":"x.json","Layers":[]}]')], "lacks the configuration"),
        ([Entry("index.json", b'{"manifests":[7]}')], "lacks an object"),
        ([Entry("index.json", json.dumps({"manifests": [{}] * 65}).encode())], "at most 64"),
    ],
)
def test_what_is_no_container_is_refused(tmp_path, entries, reason):
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(entries))
    assert reason in refusal(path, tmp_path).message


def test_indexes_are_not_followed_for_ever(tmp_path):
    blobs, inner = oci_entries(LAYERS)
    for _ in range(4):
        index = json.dumps({"manifests": [inner]}).encode()
        blobs, inner = [*blobs, blob(index)], descriptor(index, f"{OCI}.index.v1+json")
    path = tmp_path / "app.tar"
    path.write_bytes(tar_of(layout(blobs, inner)))
    assert "nested too deeply" in refusal(path, tmp_path).message


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"\x1f\x8b damaged", b"\x28\xb5\x2f\xfd damaged"]
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "app.tar"
    path.write_bytes(content)
    refusal(path, tmp_path)


def test_a_truncated_archive_is_refused(tmp_path):
    path = oci_archive(tmp_path / "app.tar", LAYERS)
    path.write_bytes(path.read_bytes()[:1500])
    assert "ends early" in refusal(path, tmp_path).message


def test_a_missing_archive_is_an_input_error(tmp_path):
    with pytest.raises(InputFileError, match="No such file"):
        read(tmp_path / "missing.tar", tmp_path)


@pytest.mark.parametrize("write", [oci_archive, docker_archive])
def test_whatever_byte_is_changed_it_is_refused_or_means_the_same(tmp_path, write):
    whole = write(tmp_path / "whole.tar", LAYERS, SETTINGS).read_bytes()
    container, tree = read(tmp_path / "whole.tar", tmp_path)
    refusals = 0
    for at in range(0, len(whole), 97):
        directory = tmp_path / str(at)
        directory.mkdir()
        (directory / "app.tar").write_bytes(
            whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :]
        )
        try:
            changed_container, changed_tree = read(directory / "app.tar", directory)
        except ImageBuildError:
            refusals += 1
        else:
            assert changed_container.settings == container.settings
            assert changed_tree.names() == tree.names()
    assert refusals > 10
