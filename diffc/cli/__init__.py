"""The command line: ``diffc dump``, ``verify``, ``version``, ``demo``."""
