"""Facial landmarks with PIP-Net (Jin, Liao, Shao, IJCV 2021, arXiv:2003.03771)."""

__version__ = "0.1.0"
