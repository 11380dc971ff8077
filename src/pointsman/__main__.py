"""`python -m pointsman` is the `pointsman` command."""

from pointsman.cli.main import main

main()
