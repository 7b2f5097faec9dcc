"""Watching a run: TensorBoard, progress on the console, drawings of genotypes.

Nothing is imported here, so that whoever wants the progress bar does not wait for matplotlib.
"""
