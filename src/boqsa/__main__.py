"""`python -m boqsa` is `boqsa`."""

import sys

from boqsa.commands import main

if __name__ == "__main__":
    sys.exit(main())
