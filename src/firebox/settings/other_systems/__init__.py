"""Settings of the systems that Firebox replaces, translated to ours."""
