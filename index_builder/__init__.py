"""From a checkpoint and a dataset, or a hospital's archive, to a gallery of embeddings."""
