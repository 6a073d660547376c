# SPDX-License-Identifier: Apache-2.0
"""What changes a model: each technique takes a Model and gives a new one."""
