"""``python -m raftcache``."""

from raftcache.cli import main

if __name__ == "__main__":
    main()
