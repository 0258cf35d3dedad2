"""The official SDKs as clients of the gateway, over sockets."""
