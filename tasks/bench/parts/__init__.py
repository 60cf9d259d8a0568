"""What is measured: one file a part, each with a function `races`."""
