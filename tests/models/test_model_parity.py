"""Every fixture that is in the reference folder, reproduced with its seeded weights."""

from __future__ import annotations

import pytest

import parity


@pytest.mark.reference
@pytest.mark.parametrize("name", parity.fixture_names("tf_deeplab", "pytorch"))
def test_the_network_reproduces_the_original(name: str) -> None:
    _, result = parity.compare(parity.load_fixture(name))
    assert result.logits_error <= parity.TOLERANCE
    assert result.labels_compared > 0
    assert result.labels_equal == result.labels_compared
