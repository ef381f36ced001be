"""Child processes in which untrusted files are read with bounded memory and time."""
