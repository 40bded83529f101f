"""What learns: the network, its pixels, and the device that it runs on."""
