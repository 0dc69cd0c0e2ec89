"""Synthetic faces: ``dataset.py`` gives them, labelled; the others hold geometry, outlines and a painter a style."""
