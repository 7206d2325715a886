"""The commands of `firebox packages`, a module for each story."""
