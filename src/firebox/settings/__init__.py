"""The settings of a server, their sources and their documentation."""
