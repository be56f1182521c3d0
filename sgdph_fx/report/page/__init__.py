"""The report as one self-contained page. The scripts and styles beside this file are put into it as they are."""

__all__: list[str] = []
