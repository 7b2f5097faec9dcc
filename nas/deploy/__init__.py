"""From a finished retraining to a network that others can use: description, loading, export."""
