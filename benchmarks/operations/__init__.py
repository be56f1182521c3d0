"""Products through every operation of torch's own database, against torch's double backward or finite differences."""
