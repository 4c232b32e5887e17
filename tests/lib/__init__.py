"""What the integration tests share: private services, clusters, a small Matrix client."""
