"""`python -m slsa_for_models`."""

import sys

from slsa_for_models.cli import main

sys.exit(main())
