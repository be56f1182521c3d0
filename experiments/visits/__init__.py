"""Many short trainings on one GPU or one core: tuned alike, in order of importance, logged one by one."""
