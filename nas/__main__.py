"""``python -m nas`` is the command ``nas``."""

import sys

from nas.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
