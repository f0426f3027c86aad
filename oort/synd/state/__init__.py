"""Where synd keeps its state: a directory, or etcd."""
