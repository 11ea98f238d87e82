"""One photo's way, whatever the engine: read, placed, enlarged to its mask, drawn, saved."""
