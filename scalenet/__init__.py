"""scalenet: where the next unit of compute should go - layers, channels or pixels - and the bigger model."""
