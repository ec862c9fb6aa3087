"""Tells model registries, MLflow's and Kubeflow's, what is in the model store."""
