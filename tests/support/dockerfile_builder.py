"""The image of machines that build containers, which tests of Dockerfiles use."""

import pytest

from boincvm.image.architectures import AMD64
from boincvm.image.oci.builder import builder_name, open_builder
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.machine.build_machine import booted
from support.images import alone


def ready_dockerfile_builder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the image's name; build it if it is missing or out of date."""
    name = builder_name(AMD64)
    with alone(tmp_path_factory, name):
        open_builder(ImageStore(), AMD64, None, booted, Progress(None)).close()
    return name
