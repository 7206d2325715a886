"""One sandbox, as the server uses it."""
