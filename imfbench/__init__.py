"""imfbench: the laboratory and the measuring stick of few-step text-to-speech."""
