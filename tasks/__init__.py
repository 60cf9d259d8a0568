"""Tasks: training, evaluating and using models on data sets."""
