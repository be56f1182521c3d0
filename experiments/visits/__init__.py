"""Many short trainings in a few minutes of one GPU: tuned alike, in order of importance, logged one by one."""
