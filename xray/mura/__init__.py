"""Reads datasets in the folder layout of MURA, and compares their splits."""
