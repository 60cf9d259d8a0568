"""Speed beside the peers', measured in turns within one run."""
