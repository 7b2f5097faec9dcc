"""What updates weights and logits, and what watches over it."""
