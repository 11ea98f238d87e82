"""What :mod:`deeplab.runtimes.probe` runs in another process: open a file, run it on one frame.

    python -m deeplab.runtimes.trial REQUEST

It ends with 0 where the file ran, with 3 where it was refused in words, which come again in the
process that asked, or by whatever signal the engine dies of.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.errors import DeepLabError
from deeplab.runtimes import Variant, describe, open_network


def main() -> None:
    """Open and run the file of a request."""
    with contextlib.suppress(ImportError):  # it is meant to die; nobody reads its memory
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request: dict[str, Any] = json.loads(sys.argv[1])
    path = Path(request.pop("path"))
    size = request.pop("size", None)
    try:
        file = describe(
            path, variant=Variant(size=tuple(size) if size else None), trusted=True, **request
        )
        network = open_network(file, threads=1)
        random = np.random.default_rng(0)
        shape = (file.card.spec.height, file.card.spec.width, 3)
        network(random.integers(0, 256, shape, dtype=np.uint8))
    except DeepLabError:
        sys.exit(3)


if __name__ == "__main__":
    main()
