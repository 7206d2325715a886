"""Building packages from recipes: Debian root, difference to the base, squashfs image."""
