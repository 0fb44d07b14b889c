"""The search spaces as YAML; installed as `scalenet_searchspaces`."""
