"""`firebox packages` and its subcommands."""
