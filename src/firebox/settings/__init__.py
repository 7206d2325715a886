"""Floor 3: the settings of a server, their sources and their documentation."""
