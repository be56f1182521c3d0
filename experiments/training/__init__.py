"""One training run: its settings, its network and optimizer, the loop, and the numbers of each epoch."""
