"""Downloads of package files: resumed, bounded and verified."""
