"""Decodes any supported file to a `Radiograph`, in this process or in a child process."""
