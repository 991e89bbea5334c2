"""Adapters that let a trainer take the snapshots: Lightning, the Trainer of Hugging Face, Ignite."""
