"""What ``imfbench new-method`` copies. Nothing here is imported: these are the files of somebody's first method."""
