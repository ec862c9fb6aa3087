"""The model server: KServe's protocols over an exported model."""
