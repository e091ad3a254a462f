"""Files that an export lays beside its weights as they are; none of them needs imfbench."""
