# SPDX-License-Identifier: Apache-2.0
"""How a bundle is to be served: measured, simulated with the batcher that serves, written down."""
