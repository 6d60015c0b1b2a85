"""The main job: from a real image to a model that learns from its patches, with a report."""
