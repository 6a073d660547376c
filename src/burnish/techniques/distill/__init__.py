# SPDX-License-Identifier: Apache-2.0
"""Training a model to give what another gives."""
