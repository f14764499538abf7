"""``python -m srcell`` is the command ``srcell``; so ``torchrun --nproc_per_node=2 -m srcell train ...`` shares it."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
