"""synd's state, in a directory or in etcd."""
