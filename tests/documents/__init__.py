"""What the pages show is run: Python blocks, commands, and what they are said to print."""
