"""``python -m imfbench`` is ``imfbench``."""

from imfbench.cli import main

if __name__ == "__main__":
    main()
