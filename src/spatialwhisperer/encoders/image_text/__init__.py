"""Published models of images and texts: each is read once, and gives an image encoder and a text encoder."""
