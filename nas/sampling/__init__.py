"""From the logits to a sample, and the gradient that comes back."""
