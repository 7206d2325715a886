"""What several doors share: bounded requests, JSON, credentials and answers."""
