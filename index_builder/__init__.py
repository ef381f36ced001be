"""From a checkpoint and a dataset to a gallery of embeddings."""
