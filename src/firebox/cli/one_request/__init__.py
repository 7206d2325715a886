"""Commands that answer one request and end: `firebox stdio`, `rce-runner` and the entry point of images."""
