"""Child processes that read untrusted files with limited memory and CPU time."""
