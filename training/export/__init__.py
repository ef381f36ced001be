"""Prepares a trained checkpoint for serving: thresholds, averaging, quantization and the check of its engine."""
