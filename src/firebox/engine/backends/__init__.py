"""How a stage runs: in a sandbox, as a plain process, or in a container."""
