"""Download of package files: resumable, bounded and verified."""
