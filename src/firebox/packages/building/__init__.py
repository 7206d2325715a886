"""From a recipe to a package: a Debian root with what the recipe names in it, its difference to the base, a squashfs image."""
