"""The admin address: status page, status document, metrics, and the port monitor."""
