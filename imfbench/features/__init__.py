"""Audio, mel-spectrograms, units and vocoders."""
