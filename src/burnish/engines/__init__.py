# SPDX-License-Identifier: Apache-2.0
"""What runs a model: the contract (`engine`) and one file for each runtime."""
