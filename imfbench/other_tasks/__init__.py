"""Other generative models: points in a plane and small images, by the same methods and the same training loop as speech."""
