"""Floor 3: what can run here. Selectors, host tools found on PATH, installed packages."""
