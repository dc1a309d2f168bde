"""`python -m boqsa.training.sweep SWEEP NAME` is the process of one run."""

import sys

from boqsa.training.sweep.worker import main

if __name__ == "__main__":
    sys.exit(main())
