"""`firebox packages`, a module for each command or two."""
