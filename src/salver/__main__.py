"""`python -m salver`: the command line."""

from salver.cli import main

raise SystemExit(main())
