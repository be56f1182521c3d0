"""Many runs: recipe files, the log, resuming, several jobs at once."""
