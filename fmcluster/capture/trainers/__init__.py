"""Trainers: adapters that let Lightning, the Trainer of Hugging Face and Ignite take the snapshots."""
