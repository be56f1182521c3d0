"""What the commands that measure Hessians share."""
