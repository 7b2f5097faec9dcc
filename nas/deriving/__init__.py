"""From a trained supernet to one discrete architecture."""
