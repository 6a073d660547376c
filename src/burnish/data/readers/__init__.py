# SPDX-License-Identifier: Apache-2.0
"""What turns files and functions into raw samples, one kind of source a file."""
