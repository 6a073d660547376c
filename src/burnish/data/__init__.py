# SPDX-License-Identifier: Apache-2.0
"""What a Task reads and how it is judged."""
