"""One sandbox as the server holds it."""
