"""What is measured, each figure beside the target of the design. The machines are noisy: compare within one run."""
