"""The networks that PIPNet is compared with, all :class:`pipnet.model.network.LandmarkNet`: same crops, same recipe."""
