"""Decodes any supported file into a `Radiograph`, in this process or in a child process."""
