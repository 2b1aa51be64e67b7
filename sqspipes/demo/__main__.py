"""``python -m sqspipes.demo``."""

from __future__ import annotations

import sys

from sqspipes.demo.show import main

if __name__ == "__main__":
    sys.exit(main())
