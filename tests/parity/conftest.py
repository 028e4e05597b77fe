"""Comparisons with published implementations."""

import os

os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"  # before lightly is imported: older versions ask their server
