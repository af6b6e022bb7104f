"""Any batch of any run as a labelled picture: exactly the pixels that the network got."""
