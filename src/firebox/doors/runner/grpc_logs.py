"""The gRPC library writes to standard error by itself, in a form of its own, between the lines of our log."""

from __future__ import annotations

import os


def silence() -> None:
    """Have it say nothing, unless somebody wants to hear it: GRPC_VERBOSITY=info. To be called before the library is imported.

    Source: gRPC core, doc/environment_variables.md.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
