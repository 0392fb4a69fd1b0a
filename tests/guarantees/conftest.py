from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guarantees.nursery import Nursery, nursery_in


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery_in(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery
