"""`python -m model_signing`."""

from model_signing.cli import main

raise SystemExit(main())
