"""The HTTP service that classifies radiographs, draws heatmaps and finds similar cases."""
