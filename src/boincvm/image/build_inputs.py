"""Check what a build is asked for, suite, architecture and kernel, and make a recipe of it.

An image of the same recipe is up to date (build.present).
"""

from boincvm.errors import ImageBuildError, UsageError
from boincvm.image import agent_files
from boincvm.image.architectures import AMD64, ARCHITECTURES, ImageArchitecture
from boincvm.image.kernels import store as kernel_store
from boincvm.image.kernels.store import GuestKernel
from boincvm.image.manifest import Recipe
from boincvm.image.names import check_package_names

RECIPE_VERSION = 6
"""The version of the builder's rules. Raise it whenever they change an image's content."""

PYTHON_OF_SUITE = {"bookworm": "python3.11"}
"""The suites that are known to work, and the Python that starts the agent there."""

DEBIAN = "debian"
"""The name that stands for Debian's own kernel."""


def check_architecture(name: str) -> ImageArchitecture:
    """Return the architecture with this name. Raises ImageBuildError for an unknown one."""
    found = ARCHITECTURES.get(name)
    if found is None:
        raise ImageBuildError(
            f"images for {ascii(name)[:40]} cannot be built",
            hint=f"choose one of: {', '.join(ARCHITECTURES)}",
        )
    return found


def own_kernel_of(name: str, architecture: ImageArchitecture) -> GuestKernel:
    """Return the kernel of this name that was built here. Raises UsageError, ImageMissingError."""
    if architecture is not AMD64:
        shown = ascii(name)[1:-1][:40]
        raise UsageError(
            f"the kernel {shown} is for amd64, and the image for {architecture.name}",
            hint=f"leave out --kernel: images for {architecture.name} have Debian's kernel",
        )
    if name == kernel_store.UML:
        raise UsageError(
            "the kernel uml is a program of the host, and no image holds it",
            hint="--driver uml uses it for any image once it is built",
        )
    return kernel_store.read(name)


def make_recipe(
    packages: tuple[str, ...], suite: str, own_kernel: GuestKernel | None = None
) -> Recipe:
    """Check the names and make a recipe of them.

    Raises UsageError for invalid names, ImageBuildError for an unknown suite.
    """
    checked = check_package_names(packages)
    if suite not in PYTHON_OF_SUITE:
        raise ImageBuildError(
            f"images of Debian {suite!r} cannot be built",
            hint=f"choose one of: {', '.join(PYTHON_OF_SUITE)}",
        )
    kernel = "" if own_kernel is None else own_kernel.sha256
    return Recipe(RECIPE_VERSION, suite, checked, agent_files.guest_digest(), kernel)
