"""How drawn faces are made: geometry, outlines and the painter of each style. Use ``pipnet.data.synthetic.dataset``."""
