"""What one training step costs under each optimizer: time, arithmetic and memory, as ratios to SGD's."""
