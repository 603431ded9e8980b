"""`python -m recur` is the `recur` command."""

from recur.cli import main

raise SystemExit(main())
