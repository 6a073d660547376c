# SPDX-License-Identifier: Apache-2.0
"""From a bundle to answers: what a server of models is made of."""
