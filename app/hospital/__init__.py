"""Studies from a hospital's archive: received, analyzed, and their results delivered."""
