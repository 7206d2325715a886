"""One-shot commands: `firebox stdio`, `rce-runner` and the entry points of images."""
