"""Floor 4: admission, stages, events, results."""
