"""Log figures and embeddings to other tools: TensorBoard, its projector, Weights & Biases."""
