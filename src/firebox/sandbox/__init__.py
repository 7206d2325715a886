"""Floor 1: isolated process trees. Knows no language, user or protocol."""
