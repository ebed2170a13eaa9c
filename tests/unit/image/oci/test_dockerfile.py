"""Builds from Dockerfiles, in machines that only answer as one with buildah does."""

import asyncio
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import (
    GuestPoweredOffError,
    HostDiskFullError,
    ImageBuildError,
    LimitError,
    UsageError,
)
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.architectures import AMD64, ARM64
from boincvm.image.manifest import Recipe
from boincvm.image.oci import buildah, builder, dockerfile
from boincvm.image.oci.base_images import BaseImage, format_of, parse_base_images
from boincvm.image.oci.buildah import ContainerBuild, environment
from boincvm.image.oci.dockerfile import read_arguments
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from support.containers import docker_archive, oci_archive, tar_of
from support.packed_images import publish

IDENTIFIER = "ab" * 32
STEPS = b"STEP 1/2: FROM scratch\nearlier\nSTEP 2/2: RUN make\n"


class Machine:
    """In place of a machine with buildah, which prints `printed` and ends with `code`."""

    def __init__(self, printed: bytes = STEPS, code: int | None = 0, **usage: int) -> None:
        self.printed, self.code, self.usage = printed, code, usage
        self.answers = {"pull": (0, f"pulling\n{IDENTIFIER}\n".encode())}
        self.hangs = False
        self.error: Exception | None = None
        self.put_error: Exception | None = None
        self.commands: list[list[str]] = []
        self.sent: dict[str, bytes] = {}
        self.is_up = False

    @asynccontextmanager
    async def boot(self, _spec: MachineSpec, _limit: float) -> AsyncIterator["Machine"]:
        self.is_up = True
        try:
            yield self
        finally:
            self.is_up = False

    async def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_output: Callable[[str, bytes], None],
    ) -> ProgramEnd:
        assert environment["HOME"] == "/root"
        self.commands.append(list(argv))
        if "bud" in argv:
            for piece in (self.printed[:30], self.printed[30:]):
                on_output("stdout", piece)
            if self.error is not None:
                raise self.error
            if self.hangs:
                await asyncio.Event().wait()
            return self._end(self.code)
        verb = argv[5] if argv[0] == "buildah" else argv[0]
        code, printed = self.answers.get(verb, (0, b""))
        on_output("stdout" if code == 0 else "stderr", printed)
        return self._end(code)

    def _end(self, code: int | None) -> ProgramEnd:
        end = ProgramEnd(code, None if code is not None else 9, 0, 0, 0, 0, 1 << 30)
        return end._replace(**self.usage)

    async def put(self, source: Path, destination: PurePosixPath) -> None:
        if self.put_error is not None:
            raise self.put_error
        self.sent[str(destination)] = source.read_bytes()

    async def get(self, source: PurePosixPath, destination: Path, most: int) -> None:
        assert str(source) == "container.tar"
        assert most > 0
        destination.write_bytes(b"a container")


def build(
    machine: Machine,
    directory: Path,
    asked: ContainerBuild | None = None,
    *,
    limit: float = 60,
    shown: list[str] | None = None,
) -> Path:
    sent = directory / "build.tar"
    sent.write_bytes(b"a context")
    spec = MachineSpec(directory, None, None, directory / "root", memory=1, cpus=1)
    asked = asked or ContainerBuild(sent, "", (), ())
    progress = Progress(None if shown is None else shown.append)
    dockerfile._build(spec, asked, directory / "container", limit, machine.boot, progress)
    return directory / "container"


def failure(machine: Machine, directory: Path, **options: float) -> ImageBuildError:
    with pytest.raises(ImageBuildError) as caught:
        build(machine, directory, **options)
    assert not machine.is_up
    return caught.value


def test_what_the_machine_is_asked(tmp_path: Path) -> None:
    (tmp_path / "debian.tar").write_bytes(b"a base image")
    (tmp_path / "link.tar").symlink_to("debian.tar")
    base = BaseImage("docker.io/library/debian:12", tmp_path / "link.tar")
    arguments = ("A=1", "B=-x y")
    asked = ContainerBuild(tmp_path / "build.tar", "--last", arguments, [(base, "oci-archive")])
    machine = Machine()
    shown: list[str] = []
    assert build(machine, tmp_path, asked, shown=shown).read_bytes() == b"a container"
    assert machine.sent == {"build.tar": b"a context", "base-0.tar": b"a base image"}
    extract, _remove, pull, tag, bud, push = machine.commands
    assert extract == ["tar", "-C", str(WORK), "-xf", str(WORK / "build.tar")]
    assert pull[-3:] == ["pull", "--quiet", f"oci-archive:{WORK}/base-0.tar"]
    assert tag[-3:] == ["tag", IDENTIFIER, base.name]
    assert bud[-4:-1] == ["--target=--last", "--build-arg=A=1", "--build-arg=B=-x y"]
    assert bud[-1] == str(WORK / "context")
    assert push[-2:] == [
        "container:latest",
        f"docker-archive:{WORK}/container.tar:container:latest",
    ]
    steps = [line.partition("] ")[2].strip() for line in shown]
    assert steps == [
        "unpacking docker.io/library/debian:12",
        "STEP 1/2: FROM scratch",
        "STEP 2/2: RUN make",
        "saving the container",
    ]


def test_a_step_that_fails(tmp_path: Path) -> None:
    printed = STEPS + b'no \x1b[31m rule\nError: building at STEP "RUN make": exit status 7\n'
    shown: list[str] = []
    with pytest.raises(ImageBuildError) as caught:
        build(Machine(printed, 7), tmp_path, shown=shown)
    assert caught.value.message == "STEP 2/2: RUN make ended with 7"
    assert "    no [31m rule\n" in caught.value.hint
    assert "earlier" not in caught.value.hint, "only what this step has printed"
    assert shown[-1].endswith("STEP 2/2: RUN make: failed\n")


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (
            STEPS
            + b'Error: building at STEP "COPY a b": x copier.request{A:{B:1}}: no such file\n',
            "STEP 2/2: RUN make failed: x no such file",
        ),
        (b"Error: no FROM statement found\n", "the Dockerfile failed: no FROM statement found"),
        (
            b"Error: Unknown instruction: FOO &imagebuilder.Step{Env:[]}\n",
            "the Dockerfile failed: Unknown instruction: FOO",
        ),
        (b"", "the Dockerfile failed, with code 125"),
    ],
)
def test_other_failures(tmp_path: Path, printed: bytes, message: str) -> None:
    assert failure(Machine(printed, 125), tmp_path).message == message


def test_what_fills_disk_or_memory_or_cannot_be_fetched(tmp_path: Path) -> None:
    ended = b'Error: building at STEP "RUN make": exit status 1\n'
    full = STEPS + b"cc: No space left on device\n" + ended
    assert failure(Machine(full, 1), tmp_path).hint.startswith(
        "the machine's disk of 32.0 GiB is full; "
    )
    recovered = b"No space left on device\n" + STEPS + ended
    assert "disk" not in failure(Machine(recovered, 1), tmp_path).hint
    killed = Machine(STEPS + ended, 1, out_of_memory_kills=1)
    assert "memory of 2.0 GiB was used up" in failure(killed, tmp_path).hint
    absent = b"Error: creating build container: initializing source docker://a: no such host\n"
    assert "--base-image NAME=FILE" in failure(Machine(STEPS + absent, 125), tmp_path).hint


def test_a_build_that_is_killed_or_takes_too_long(tmp_path: Path) -> None:
    assert failure(Machine(code=None), tmp_path).message.endswith("signal 9 ended the build")
    slow = Machine()
    slow.hangs = True
    error = failure(slow, tmp_path, limit=0.2)
    where = "STEP 2/2: RUN make"
    assert error.message == f"the container was not built within 0.2s, and ended at {where}"
    assert "--limit" in error.hint


def test_faults_of_the_machine(tmp_path: Path) -> None:
    machine = Machine()
    machine.error = GuestPoweredOffError("the guest is off")
    assert "the machine that builds the container failed: the guest is off" in (
        failure(machine, tmp_path).message
    )
    machine.error = HostDiskFullError("full")
    with pytest.raises(HostDiskFullError):
        build(machine, tmp_path)
    machine = Machine()
    machine.put_error = LimitError("full")
    assert "disk of 32.0 GiB is full" in failure(machine, tmp_path).message


@pytest.mark.parametrize("verb", ["tar", "push"])
def test_other_programs_that_fail(tmp_path: Path, verb: str) -> None:
    machine = Machine()
    machine.answers[verb] = (2, b"\x1b[2Jwrite: no space left on device")
    error = failure(machine, tmp_path)
    assert "failed in the machine" in error.message
    assert error.hint.startswith("the machine's disk of 32.0 GiB is full; ")
    assert "\x1b" not in error.hint


@pytest.mark.parametrize("printed", [b"", b"docker.io/library/x", b"\xff" * 64])
def test_a_base_image_of_which_nobody_says_what_it_is(tmp_path: Path, printed: bytes) -> None:
    machine = Machine()
    machine.answers["pull"] = (0, printed)
    base = BaseImage("docker.io/library/debian:12", tmp_path / "build.tar")
    asked = ContainerBuild(tmp_path / "build.tar", "", (), [(base, "oci-archive")])
    with pytest.raises(ImageBuildError, match="did not say what it is"):
        build(machine, tmp_path, asked)


def test_the_proxies_of_this_computer_are_those_of_the_machine() -> None:
    ours = {"https_proxy": "http://p:1", "NO_PROXY": "x", "SECRET": "s", "PATH": "/bin"}
    found = environment(ours)
    assert (found["https_proxy"], found["NO_PROXY"]) == ("http://p:1", "x")
    assert "SECRET" not in found
    assert found["PATH"] != "/bin"


def test_what_is_sent_has_the_dockerfile_beside_the_context(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/.dockerignore").write_text("*\n!data")
    (tmp_path / "context/Dockerfile").write_text("FROM scratch")
    (tmp_path / "context/data").write_text("1")
    read = dockerfile.read_dockerfile(tmp_path / "context")
    sent = tmp_path / "sent.tar"
    notes: list[str] = []
    assert dockerfile._pack(sent, tmp_path / "context", read, Progress(notes.append)) == 1
    with tarfile.open(sent) as archive:
        names = archive.getnames()
    assert names == ["Dockerfile", "ignore", "registries.conf", "context", "context/data"]
    assert "the context has 1 file, 1 B" in notes[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("debian:12", "docker.io/library/debian:12"),
        ("debian", "docker.io/library/debian:latest"),
        ("me/app:1", "docker.io/me/app:1"),
        ("quay.io/me/app", "quay.io/me/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("host:5000/a/b_c:v1.0-x", "host:5000/a/b_c:v1.0-x"),
    ],
)
def test_names_of_base_images(text: str, name: str) -> None:
    assert parse_base_images([f"{text}=dir/a=b.tar"]) == (BaseImage(name, Path("dir/a=b.tar")),)


@pytest.mark.parametrize(
    "text",
    [
        *("debian:12", "=a.tar", "debian=", "Debian=a", "a b=c", "-x=a", "debian:=a", "a//b=c"),
        *("debian@sha256:" + "1" * 64 + "=a", "a" * 300 + "=b", "debian:12=a\0b", "../x=a"),
        "a" + "-_." * 80 + "=b",
    ],
)
def test_what_names_no_base_image(text: str) -> None:
    with pytest.raises(UsageError, match="expected NAME=FILE"):
        parse_base_images([text])


def test_no_two_and_not_too_many_base_images() -> None:
    with pytest.raises(UsageError, match="two --base-image for docker"):
        parse_base_images(["a=1", "docker.io/library/a:latest=2"])
    with pytest.raises(UsageError, match="at most 16"):
        parse_base_images([f"a{number}=x" for number in range(17)])


def test_the_format_of_a_base_image(tmp_path: Path) -> None:
    layers = [tar_of([])]
    base = BaseImage("a", oci_archive(tmp_path / "oci.tar", layers))
    assert format_of(base, "amd64", tmp_path) == "oci-archive"
    with pytest.raises(ImageBuildError, match="no container for arm64"):
        format_of(base, "arm64", tmp_path)
    base = BaseImage("a", docker_archive(tmp_path / "docker.tar", layers))
    assert format_of(base, "amd64", tmp_path) == "docker-archive"


def test_build_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "x y")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert read_arguments(["A=1=2", "FROM_HERE", "NOWHERE", "B="]) == (
        *("A=1=2", "FROM_HERE=x y", "B="),
    )
    for text in ("", "=x", "a-b=1", "1=2"):
        with pytest.raises(UsageError, match="expected NAME=VALUE"):
            read_arguments([text])
    with pytest.raises(UsageError, match="more than 64"):
        read_arguments([f"A={'x' * dockerfile.MOST_ARGUMENTS}"])


# The image of machines that build.


def test_the_builder_s_name_is_not_taken_from_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(tmp_path / "store")
    publish(store, builder.NAME)
    monkeypatch.setattr(builder, "build_image", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(ImageBuildError, match="not the one in whose machines") as caught:
        builder.open_builder(store, AMD64, None, Machine().boot, Progress(None))
    assert f"boincvm image rm {builder.NAME}" in caught.value.hint


def test_the_builder_is_announced_with_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(tmp_path / "store")
    notes: list[str] = []
    asked: list[dict[str, object]] = []

    def build_image(name: str, packages: tuple[str, ...], **options: object) -> None:
        assert "MB of Debian's packages are downloaded" in notes[-1]
        asked.append({"name": name, "packages": packages, **options})
        publish(store, name)

    monkeypatch.setattr(builder, "build_image", build_image)
    for kind, name in ((AMD64, "dockerfile-builder"), (ARM64, "dockerfile-builder-arm64")):
        builder.open_builder(store, kind, None, Machine().boot, Progress(notes.append)).close()
        assert asked[-1]["name"] == name
        assert asked[-1]["modules"] == ("overlay",)
    recipe = Recipe(1, "bookworm", ("buildah",), "g")
    monkeypatch.setattr(builder, "make_recipe", lambda *_: recipe)
    assert builder.present(store, builder.NAME, recipe, AMD64) is None
    assert buildah.DISK > buildah.MEMORY
