"""These tests only run in the virtual machine of `make test-vm`."""

import os

collect_ignore_glob = [] if os.environ.get("FIREBOX_VM_USER") else ["test_*.py"]
