"""What the tests of faults compare with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reliability.test_resume import undisturbed


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, int]]:
    """What a run leaves that nobody disturbs, and how many events of each kind it has."""
    return undisturbed(tmp_path_factory.mktemp("whole"))
