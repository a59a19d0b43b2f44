"""`python -m model_signing`."""

import sys

from model_signing.cli import main

sys.exit(main())
