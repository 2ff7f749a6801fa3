"""Discovery: names and SRV records become endpoints, and stay current."""
