"""What ``pip install deeplab`` brings along: the closure of the core dependencies, and its size."""

from __future__ import annotations

from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

LIMIT_MB = 200


def core_closure(name: str) -> dict[str, Distribution]:
    """Return the distributions that installing ``name`` without extras brings, itself included."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name)]
    while waiting:
        requirement = waiting.pop()
        if requirement.name.lower() in found:
            continue
        package = found[requirement.name.lower()] = distribution(requirement.name)
        for text in package.requires or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
    return found


def installed_bytes(package: Distribution) -> int:
    paths = [package.locate_file(file) for file in package.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())  # type: ignore[attr-defined]


def test_the_core_is_small_and_has_no_training_framework():
    packages = core_closure("deeplab")
    assert "numpy" in packages
    assert not {"torch", "numba", "openvino", "opencv-python-headless"} & set(packages)
    megabytes = sum(map(installed_bytes, packages.values())) / 1e6
    assert 50 < megabytes < LIMIT_MB, f"the core install takes {megabytes:.0f} MB"
