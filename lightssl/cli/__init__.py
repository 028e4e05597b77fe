"""The command line: one file a command, on top of :mod:`lightssl.pipeline`. Heavy imports wait until a command runs."""
