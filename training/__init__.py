"""From a folder in MURA layout to a checkpoint, and how good it is."""
