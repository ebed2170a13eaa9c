"""Fixtures of several tests of the bus."""

from collections.abc import Iterator

import pytest

from support.bus.brokers import KINDS, RunningBroker, running_broker


@pytest.fixture(scope="module", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    with running_broker(request.param, tmp_path_factory.mktemp("broker")) as running:
        yield running
