"""These tests are about the virtual machine of `make test-vm`, so there is nothing to collect anywhere else."""

import os

collect_ignore_glob = [] if os.environ.get("FIREBOX_VM_USER") else ["test_*.py"]
