"""The discrete result of a search: its files, its texts, the published ones and those of a user."""

from nas.genotype.genotype import Confidence, Edge, Genotype, Key, Size

__all__ = ["Confidence", "Edge", "Genotype", "Key", "Size"]
