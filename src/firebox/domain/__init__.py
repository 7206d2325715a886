"""The vocabulary. What a job, a result, a limit and an error are."""
