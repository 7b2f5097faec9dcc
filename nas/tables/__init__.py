"""Tables of architectures that somebody has trained."""
