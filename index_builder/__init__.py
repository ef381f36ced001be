"""Builds the gallery of embeddings that `/retrieve` searches, from a dataset or from a hospital's archive."""
