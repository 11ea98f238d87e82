"""How fast, how good, how large: models against each other, in one interleaved run."""
