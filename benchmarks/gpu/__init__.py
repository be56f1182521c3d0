"""What a training step costs on a GPU: eager, captured and compiled, as ratios to SGD's steps in the same run."""
