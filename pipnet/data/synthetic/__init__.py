"""Synthetic faces: ``dataset.py`` gives them, labelled; the others hold geometry, strokes and the two painters."""
