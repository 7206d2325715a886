"""Protocol front ends. Doors never import each other."""
