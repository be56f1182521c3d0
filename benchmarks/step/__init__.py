"""What one training step costs under each optimizer: time, convolution arithmetic and memory, as ratios to SGD's."""
