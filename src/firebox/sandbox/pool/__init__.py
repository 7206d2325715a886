"""The pool of idle sandboxes, and the templates that interpreters are restored from."""
