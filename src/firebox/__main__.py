"""`python -m firebox`: the command, also where its script is not in PATH."""

from firebox.cli.main import main

main()
