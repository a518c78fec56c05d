"""Memory stays flat over many executions; `make prove` runs a hundred thousand."""

from __future__ import annotations

from tests.detectors.leaking import growth_apart


def test_memory_does_not_grow_with_executions() -> None:
    """When this fails, each execution leaves something behind, and a night's run ends without memory."""
    seen = growth_apart(80_000, blocks=40)

    assert seen.flat, str(seen)


def test_a_leak_would_be_seen() -> None:
    """When this fails, the test above cannot fail."""
    seen = growth_apart(80_000, blocks=40, leaks=True)

    assert not seen.flat, str(seen)
