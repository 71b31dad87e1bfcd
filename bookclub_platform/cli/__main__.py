"""`python -m bookclub_platform.cli`, for where the command itself is not on the path."""

from bookclub_platform.cli import main

if __name__ == "__main__":
    main(prog_name="bookclub")
