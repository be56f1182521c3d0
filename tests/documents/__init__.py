"""The tests run what the pages show: Python blocks, commands, and the output that they claim."""
