"""``python -m deeplab`` is the command line; ``torchrun -m deeplab train …`` needs it."""

from deeplab.cli import main

main()
