"""The image of the machines that build containers: Debian with buildah.

It is an image like others, built once, when the first Dockerfile is; `boincvm image rm` removes it.
"""

from boincvm.errors import ImageBuildError, ImageDamagedError, ImageMissingError
from boincvm.image.architectures import AMD64, ImageArchitecture
from boincvm.image.build import build_image, present
from boincvm.image.build_inputs import make_recipe
from boincvm.image.machine import BootMachine
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore

NAME = "dockerfile-builder"
"""The image's name; of machines of another architecture, the name begins with it."""
SUITE = "bookworm"
_PACKAGES = ("buildah",)
_SPARED = ("container-network-stack", "dmsetup", "gnupg", "uidmap")
"""What only networks of containers, devices, signatures and other users than root need: without
them, no script of a package has to run."""
_MODULES = ("overlay",)
"""Without it each layer would be a copy of all those below it."""


def builder_name(architecture: ImageArchitecture) -> str:
    """Return the name of the image of machines that build containers for `architecture`."""
    return NAME if architecture is AMD64 else f"{NAME}-{architecture.name}"


def open_builder(
    store: ImageStore,
    architecture: ImageArchitecture,
    mirror: str | None,
    boot: BootMachine,
    progress: Progress,
) -> Image:
    """Open the image, which the caller closes; first build it if it is missing or out of date.

    Raises ImageBuildError, HostDiskFullError, OSError.
    """
    name = builder_name(architecture)
    if present(store, name, make_recipe(_PACKAGES, SUITE), architecture) is None:
        _check_free(store, name)
        progress.note(
            f"Dockerfiles are built in machines of the image {name}, which is built now, once:"
            " 60 MB of Debian's packages are downloaded, or 7 MB if the image base was built here"
        )
        build_image(
            name,
            _PACKAGES,
            suite=SUITE,
            mirror=mirror,
            architecture=architecture.name,
            spared=_SPARED,
            modules=_MODULES,
            boot=boot,
            progress=progress,
            store=store,
        )
    return store.open(name)


def _check_free(store: ImageStore, name: str) -> None:
    """Check that the name is not that of somebody's own image. Raises ImageBuildError."""
    try:
        with store.open_unverified(name) as image:
            is_ours = image.manifest.recipe.packages == _PACKAGES and not image.manifest.machine
    except (ImageMissingError, ImageDamagedError):
        return
    if not is_ours:
        raise ImageBuildError(
            f"the image {name} is not the one in whose machines Dockerfiles are built",
            hint=f"it has to have another name: boincvm image pack {name} FILE.tar.gz,"
            f" boincvm image unpack FILE.tar.gz NEW, boincvm image rm {name}",
        )
