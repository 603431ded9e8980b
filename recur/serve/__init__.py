"""The service: predictions over HTTP, and the page in the browser. `recur.serve.app` is the application."""
