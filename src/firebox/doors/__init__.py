"""Floor 7: protocol front ends. Doors never import each other."""
